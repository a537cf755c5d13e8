import json
import os
import re
import urllib.request

API = os.environ["FREEAGENT_URL"] + "/v2"


def call(method, url, body=None):
    headers = {"Authorization": "Bearer " + os.environ["FREEAGENT_KEY"]}
    data = None
    if body:
        headers["Content-Type"] = "application/json"
        data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)
    with urllib.request.urlopen(request) as response:  # raises unless it is a success
        text = response.read()
        return json.loads(text) if text else None, response.headers


def expect(got, want):
    if got != want:
        raise SystemExit(f"got {got}, want {want}")


answer, headers = call("POST", API + "/contacts", {"contact": {"organisation_name": "Acme"}})
created = answer["contact"]["url"]
expect(headers["Location"], created)

contacts, page = [], API + "/contacts?per_page=10"
while page:
    answer, headers = call("GET", page)
    contacts += answer["contacts"]
    following = re.search("<([^>]*)>; rel='next'", headers["Link"])
    page = following and following[1]
expect(len(contacts), 26)
expect(call("GET", created)[0]["contact"]["url"], created)

project = call("POST", API + "/projects", {"project": {"name": "Roof", "contact": created}})[1]["Location"]
first = contacts[0]["url"]
call("PUT", project, {"project": {"contact": first}})
expect(call("GET", project)[0]["project"]["contact"], first)
call("DELETE", project)
call("DELETE", created)
