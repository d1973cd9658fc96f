// Live messages: one event stream over fetch (so that a token can go with it), resumed where it broke off when one stream is
// followed. First the newest that are stored.

import { Backoff, breathe, rest } from './frames.js';
import { rowsOf } from './payload.js';
import { EventParser } from './sse.js';

// Stored messages shown first: the newest 200 of each stream, among its last 1,000; of at most 8 streams.
const HISTORY_ROWS = 200;
const HISTORY_SPAN = 1000;
const HISTORY_STREAMS = 8;
// Work on events before input and drawing have their turn.
const SLICE_MS = 8;
// Three times the interval of comments: a connection that says nothing is dead.
const SILENCE_MS = 45000;

/** Follows `filter` in `stream` ('' = all). `sink`: row(row, raw), gap(gap), state(name, detail, retryMs), restarted(). */
export class Follow {
	#run = null;
	/** Stream → the last number handed over: nothing comes twice, and a reconnected stream goes on behind it. */
	#seen = new Map();
	#backoff = new Backoff(1000, 30000);

	constructor(api, sink, streamsOf) {
		this.api = api;
		this.sink = sink;
		this.streamsOf = streamsOf;
		this.filter = '#';
		this.stream = '';
	}

	/** Follow something else, from the beginning. */
	choose(filter, stream) {
		this.filter = filter;
		this.stream = stream;
		this.#seen.clear();
		this.#backoff.reset();
		this.sink.restarted();
		if (this.#run) this.start();
	}

	/** Connect, or connect again now. */
	start() {
		this.stop();
		const run = (this.#run = new AbortController());
		this.#keep(run.signal);
	}

	stop() {
		this.#run?.abort();
		this.#run = null;
	}

	async #keep(signal) {
		while (!signal.aborted) {
			this.sink.state('connecting', '');
			let error = null;
			try {
				await this.#once(signal);
			} catch (caught) {
				error = caught;
			}
			if (signal.aborted) return;
			if (error?.isDenied || (error?.status >= 400 && error.status < 500 && ![408, 429].includes(error.status))) {
				this.sink.state('refused', error.hint ? `${error.message} (${error.hint})` : error.message);
				return;
			}
			const wait = this.#backoff.take();
			this.sink.state('waiting', error instanceof Error && error.status ? error.message : '', wait);
			await rest(wait, signal);
		}
	}

	async #once(signal) {
		const query = new URLSearchParams({ topic: this.filter });
		const headers = { Accept: 'text/event-stream' };
		if (this.stream) {
			query.set('stream', this.stream);
			if (this.#seen.has(this.stream)) headers['Last-Event-ID'] = `${this.stream}:${this.#seen.get(this.stream)}`;
		}
		// Its own signal: the reader is cancelled when the stream falls silent.
		const silence = new AbortController();
		const end = () => silence.abort();
		signal.addEventListener('abort', end, { once: true });
		let watch = setTimeout(end, SILENCE_MS);
		try {
			const response = await this.api.request(`v1/stream?${query}`, { headers, signal: silence.signal });
			if (!headers['Last-Event-ID']) await this.#history(silence.signal);
			this.#backoff.reset();
			this.sink.state('live', '');
			const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
			const parser = new EventParser();
			for (;;) {
				const { done, value } = await reader.read();
				if (done) return;
				clearTimeout(watch);
				watch = setTimeout(end, SILENCE_MS);
				await this.#deal(parser.push(value), silence.signal);
			}
		} finally {
			clearTimeout(watch);
			signal.removeEventListener('abort', end);
			silence.abort();
		}
	}

	async #deal(events, signal) {
		let until = performance.now() + SLICE_MS;
		for (const event of events) {
			this.#event(event);
			if (performance.now() > until) {
				await breathe();
				if (signal.aborted) return;
				until = performance.now() + SLICE_MS;
			}
		}
	}

	#event({ type, data }) {
		let row;
		try {
			row = JSON.parse(data);
		} catch {
			return;
		}
		if (type === 'gap') {
			const gap = { stream: this.stream, ...row.gap };
			this.#seen.set(gap.stream, gap.last);
			this.sink.gap(gap);
		} else this.#hand(row, data);
	}

	#hand(row, raw) {
		if (row.seq <= this.#seen.get(row.stream)) return;
		this.#seen.set(row.stream, row.seq);
		this.sink.row(row, raw);
	}

	/** Hand over what is stored. */
	async #history(signal) {
		let streams = 0;
		const found = [];
		for (const [name, last] of await this.streamsOf(signal)) {
			if (streams >= HISTORY_STREAMS) break;
			if ((this.stream && name !== this.stream) || !last) continue;
			let rows = await this.#page(name, last - HISTORY_SPAN, signal);
			// Large payloads: the answer was full before it came to the newest.
			if (rows.length > 0 && rows.isCut) rows = await this.#page(name, last - HISTORY_ROWS / 4, signal);
			found.push(...rows.slice(-HISTORY_ROWS));
			streams += 1;
		}
		found.sort(([a], [b]) => (a.time < b.time ? -1 : a.time > b.time ? 1 : 0));
		for (const [row, raw] of found) this.#hand(row, raw);
	}

	async #page(stream, after, signal) {
		const query = new URLSearchParams({ stream, topic: this.filter, after: Math.max(0, after), limit: HISTORY_SPAN });
		const response = await this.api.request(`v1/messages?${query}`, { signal });
		const rows = await rowsOf(response);
		rows.isCut = response.headers.has('Link');
		return rows;
	}
}
