# A program that knows HTTP/1.0 and nothing else, and no Host.
set -eu
call() {
	host=${2#http://} && host=${host%%/*}
	printf '%s /%s HTTP/1.0\r\nX-Api-Key: %s\r\nContent-Type: application/json\r\nContent-Length: %s\r\n\r\n%s' \
		"$1" "${2#http://*/}" "$FREEAGENT_KEY" "$(printf %s "${3-}" | wc -c)" "${3-}" | nc "${host%:*}" "${host#*:}" >answer
	sed '/^\r$/q' answer >header
	sed '1,/^\r$/d' answer >body
	grep -q '^HTTP/1.0 20' header
}
. "$(dirname "$0")/steps.sh"
