set -eu
call() {
	wget --quiet --server-response --tries=1 --header "Authorization: Bearer $FREEAGENT_KEY" --header 'Content-Type: application/json' \
		--method "$1" ${3:+--body-data "$3"} --output-document body "$2" 2>header
}
. "$(dirname "$0")/steps.sh"
