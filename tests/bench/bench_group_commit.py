"""A thousand publishers in one process that each wait for their receipt, against the same messages put in as ready chunks."""

from tests.bench.measure import Goal, Options, Result, interleaved, judged, measured_apart, median, rounded

GOAL = Goal("ratio", at_most=False, must=0.4, aim=0.6)
PAIRS = 7
RUN_S = 3


def run(options: Options) -> Result:
    """Interleaved pairs, limit first."""
    commits: list[float] = []

    def limit() -> float:
        return measured_apart("tests.bench.raw_store", "chunks", options.folder, RUN_S)["per_s"]

    def ours() -> float:
        figures = measured_apart("tests.bench.publishers", options.folder, RUN_S, options.loop)
        commits.append(figures["commits_per_s"])
        return figures["per_s"]

    pairs = interleaved(limit, ours, options.pairs or PAIRS)
    return judged(
        "group_commit",
        pairs.ours,
        "messages/s",
        pairs.limit,
        GOAL,
        ratio=pairs.ratio,
        ratios=pairs.ratios,
        messages_per_commit=rounded(pairs.ours / median(commits)),
        loop=options.loop,
    )
