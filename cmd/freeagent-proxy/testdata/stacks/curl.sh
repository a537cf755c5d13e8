# curl.sh OPTION: which HTTP curl speaks.
set -eu
option=$1
call() {
	curl "$option" -sS --fail -u "tests:$FREEAGENT_KEY" -D header -o body -X "$1" -H 'Content-Type: application/json' ${3:+-d "$3"} "$2"
}
. "$(dirname "$0")/steps.sh"
