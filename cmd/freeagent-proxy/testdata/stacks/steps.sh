# What curl.sh, wget.sh and nc.sh do. They define call METHOD URL [BODY], which leaves the answer in the files header and
# body, and fails unless it is a success.
header() { tr -d '\r' <header | sed -n "s/^ *$1: *//Ip" | head -n 1; }
url() { grep -o '"url":"[^"]*"' body | head -n 1 | cut -d '"' -f 4; }
next() { header link | grep -o "<[^>]*>; rel='next'" | tr '<' '>' | cut -d '>' -f 2; }
expect() { [ "$1" = "$2" ] || { echo "got $1, want $2" >&2; exit 1; }; }

call POST "$FREEAGENT_URL/v2/contacts" '{"contact":{"organisation_name":"Acme"}}'
created=$(url)
expect "$(header location)" "$created"

contacts=0 page="$FREEAGENT_URL/v2/contacts?per_page=10"
while [ -n "$page" ]; do
	call GET "$page"
	contacts=$((contacts + $(grep -o '"url":' body | wc -l)))
	first=${first:-$(url)}
	page=$(next)
done
expect $contacts 26
call GET "$created"
expect "$(url)" "$created"

call POST "$FREEAGENT_URL/v2/projects" '{"project":{"name":"Roof","contact":"'"$created"'"}}'
project=$(header location)
call PUT "$project" '{"project":{"contact":"'"$first"'"}}'
call GET "$project"
expect "$(grep -o '"contact":"[^"]*"' body)" "\"contact\":\"$first\""
call DELETE "$project"
call DELETE "$created"
