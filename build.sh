#!/usr/bin/env bash
# One entry for everything that is done with this tree: ./build.sh VERB [ARGS]. `usage` below lists the verbs.
#
# Set-up: a verb first makes sure of .venv, which holds the locked wheels of requirements/ and a small `edgegw` command that
# runs this tree. It needs python3 with venv and flock (util-linux), nothing else; no root.
#   A stamp in .venv says what it was made from: the locks, the interpreter's file, the place of the tree. It is written last
#   and taken away first, so an environment that was interrupted half way has none and is made anew.
#   Two set-ups at once: the second waits for .venv.lock and then finds the work done. When nothing is to do, no lock is taken.
# Where pip finds packages is the machine's own configuration (pip.conf, PIP_*); nothing here names a place.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
venv=$root/.venv
# Raise it when set-up itself changes, so that every tree makes its environment anew.
setup_version=1

usage() {
    cat <<'END'
usage: ./build.sh VERB [ARGS]

  run [ARGS]             the gateway in the foreground, data under ./var; ARGS go to `edgegw run`
  test [PYTEST ARGS]     every test that needs no root, emulator or network
  test --ci              the tests that need root or an emulator
  test --all             everything, for hours
  check                  format, lint, types, house rules
  bench [NAME] [--soak]  one JSON object a line
  screenshots            the pictures of the page in docs/, made anew; needs chromium

PYTHON=… chooses the interpreter (3.11 or newer; python3 from the PATH otherwise).
END
}

say() {
    printf 'build.sh: %s\n' "$*" >&2
}

die() {
    say "$*"
    exit 1
}

# Runs a command without its output, unless it fails.
quietly() {
    local output
    output=$("$@" 2>&1 </dev/null) || {
        printf '%s\n' "$output" >&2
        return 1
    }
}

# --- set-up --------------------------------------------------------------------------------------

# What an environment for $1 (run or dev) is made from. A file's name, size and time stand for the interpreter: asking it for
# its version would cost every `run` the start of a Python.
stamp_of() {
    local locks=("$root/requirements/run.txt" "$root/requirements/uvloop.txt") interpreter
    [[ $1 == run ]] || locks+=("$root/requirements/dev.txt")
    interpreter=$(command -v -- "${PYTHON:-python3}") || interpreter=none
    printf 'set-up %s\n' "$setup_version"
    stat -L -c '%n %s %Y' -- "$interpreter" 2>/dev/null || true
    sha256sum -- "${locks[@]}"
}

is_ready() {
    [[ -x $venv/bin/python && -x $venv/bin/edgegw && -f $venv/.ready-$1 && $(<"$venv/.ready-$1") == "$(stamp_of "$1")" ]]
}

set_up() {
    ! is_ready "$1" || return 0
    (
        # pip turns Ctrl-C into an ordinary failure, and the optional part may fail: without this, Ctrl-C there would pass.
        trap 'exit 130' INT
        trap 'exit 143' TERM
        flock --nonblock 9 || {
            say "another set-up of this tree is under way; waiting for it"
            flock 9
        }
        if ! is_ready "$1"; then make_environment "$1"; fi
    ) 9>"$root/.venv.lock"
}

make_environment() {
    local python
    if is_ready run && [[ ! -e $venv/.ready-dev ]]; then
        rm -f -- "$venv/.ready-run"
    else
        find_python
        say "setting up .venv (once; takes a moment)"
        rm -f -- "$venv/.ready-run" "$venv/.ready-dev"
        rm -rf -- "$venv"
        quietly "$python" -m venv -- "$venv" || die "python3 -m venv failed: $python cannot make an environment; PYTHON=… names another"
        quietly install_lock run || die "set-up failed: pip could not install requirements/run.txt; see its words above and the machine's pip configuration"
        install_uvloop
        write_command
    fi
    if [[ $1 == dev ]]; then
        say "setting up what tests and checks need (once)"
        quietly install_lock dev || die "set-up failed: pip could not install requirements/dev.txt; see its words above and the machine's pip configuration"
        stamp_of dev >"$venv/.ready-dev"
    fi
    stamp_of run >"$venv/.ready-run"
}

# Sets `python` to an interpreter that is new enough and can make environments.
find_python() {
    local name=${PYTHON:-python3}
    if ! can_make_environments "$name"; then
        install_python_venv "$name"
        hash -r
        can_make_environments "$name" || die "$name still cannot make environments: install its venv and ensurepip modules, or name another with PYTHON=…"
    fi
    python=$(command -v -- "$name")
    "$python" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' ||
        die "$python is too old: install Python 3.11 or newer, or name one with PYTHON=…"
}

can_make_environments() {
    "$1" -c 'import ensurepip, venv' >/dev/null 2>&1
}

install_python_venv() {
    if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
        die "$1 with its venv module is missing: install the package python3-venv (as root: apt-get install python3-venv), then run this again"
    fi
    say "python3-venv is missing; installing it with apt-get"
    export DEBIAN_FRONTEND=noninteractive
    # Without package lists the first try fails; that is no news for anybody.
    apt-get install -y python3-venv >/dev/null 2>&1 </dev/null && return
    quietly apt-get update || die "apt-get update failed; see its words above"
    quietly apt-get install -y python3-venv || die "apt-get could not install python3-venv; see its words above"
}

# -I: no PYTHONPATH of the caller. PIP_USER=0: a `user = true` in pip.conf would be refused inside an environment.
install_lock() {
    PIP_USER=0 "$venv/bin/python" -I -m pip install --quiet --no-input --disable-pip-version-check \
        --require-hashes --only-binary :all: --requirement "$root/requirements/$1.txt"
}

install_uvloop() {
    install_lock uvloop >/dev/null 2>&1 </dev/null || true
    "$venv/bin/python" -I -c 'import uvloop' 2>/dev/null || say "no uvloop for this machine; the gateway runs on plain asyncio"
}

# An install without a build backend: the tree on the path, and the command.
write_command() {
    local site
    site=$("$venv/bin/python" -I -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    printf '%s\n' "$root" >"$site/edgegw.pth"
    {
        if [[ $venv == *[[:space:]]* ]]; then
            # The kernel ends an interpreter's path at a blank. This is shell and Python at once: sh starts python on the file.
            printf "#!/bin/sh\n'''exec' \"%s\" \"\$0\" \"\$@\"\n' '''\n" "$venv/bin/python"
        else
            printf '#!%s\n' "$venv/bin/python"
        fi
        printf 'from edgegw.__main__ import main\n\nraise SystemExit(main())\n'
    } >"$venv/bin/edgegw"
    chmod 755 "$venv/bin/edgegw"
}

# --- verbs ---------------------------------------------------------------------------------------

verb_run() {
    set_up run
    # The caller's own --data comes later and wins. exec: signals reach the gateway itself.
    exec "$venv/bin/edgegw" run --data "$root/var" "$@"
}

verb_test() {
    local marks='not ci and not all' status=0
    case ${1-} in
        --ci)
            marks='ci and not all'
            shift
            ;;
        --all)
            marks=''
            shift
            ;;
    esac
    set_up dev
    cd -- "$root"
    "$venv/bin/python" -m pytest -m "$marks" "$@" || status=$?
    # pytest's 5: nothing was collected. Nobody asks for no tests, so a caller need not know that number.
    ((status != 5)) || die "no test matched; without arguments ./build.sh test runs all"
    exit "$status"
}

verb_check() {
    (($# == 0)) || usage_error "check takes no arguments"
    set_up dev
    cd -- "$root"
    local python=$venv/bin/python failed=()
    step format "$python" -m ruff format --check .
    step lint "$python" -m ruff check .
    step types "$python" -m mypy
    if [[ -x $venv/bin/shellcheck ]]; then
        step shell "$venv/bin/shellcheck" build.sh .ci/run
    else
        say "shell: no shellcheck for this machine; left out"
    fi
    step house "$python" -m pytest tests/test_layers.py tests/test_tidy.py
    ((${#failed[@]} == 0)) || die "check failed: ${failed[*]}"
    say "check passed"
}

# Runs one step of `check` and remembers its failure, so that one call shows everything.
step() {
    local name=$1
    shift
    say "$name"
    "$@" || failed+=("$name")
}

verb_bench() {
    set_up dev
    cd -- "$root"
    exec "$venv/bin/python" -m tests.bench "$@"
}

verb_screenshots() {
    (($# == 0)) || usage_error "screenshots takes no arguments"
    set_up dev
    cd -- "$root"
    exec "$venv/bin/python" -m tests.screenshots
}

usage_error() {
    say "$*; the verbs are: run, test, check, bench, screenshots (./build.sh help says more)"
    exit 2
}

main() {
    (($# > 0)) || usage_error "a verb is missing"
    local verb=$1
    shift
    case $verb in
        run | test | check | bench | screenshots) "verb_$verb" "$@" ;;
        help | -h | --help) usage ;;
        *) usage_error "no verb '$verb'" ;;
    esac
}

main "$@"
