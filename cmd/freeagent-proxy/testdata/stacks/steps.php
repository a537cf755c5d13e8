<?php
// What curl.php and streams.php do. They define call, which returns the body and the header.
function expect($got, $want): void
{
    if ($got !== $want) {
        throw new Exception("got $got, want $want");
    }
}

$api = getenv('FREEAGENT_URL') . '/v2';
[$answer, $headers] = call('POST', "$api/contacts", ['contact' => ['organisation_name' => 'Acme']]);
$created = $answer['contact']['url'];
expect($headers['location'], $created);

$contacts = [];
for ($page = "$api/contacts?per_page=10"; $page; $page = $next[1] ?? null) {
    [$answer, $headers] = call('GET', $page);
    $contacts = array_merge($contacts, $answer['contacts']);
    preg_match("/<([^>]*)>; rel='next'/", $headers['link'], $next);
}
expect(count($contacts), 26);
expect(call('GET', $created)[0]['contact']['url'], $created);

$project = call('POST', "$api/projects", ['project' => ['name' => 'Roof', 'contact' => $created]])[1]['location'];
$first = $contacts[0]['url'];
call('PUT', $project, ['project' => ['contact' => $first]]);
expect(call('GET', $project)[0]['project']['contact'], $first);
call('DELETE', $project);
call('DELETE', $created);
