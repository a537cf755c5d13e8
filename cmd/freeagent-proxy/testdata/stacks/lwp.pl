use strict;
use warnings;
use HTTP::Request;
use JSON::PP;
use LWP::UserAgent;

my $api = "$ENV{FREEAGENT_URL}/v2";
my $ua  = LWP::UserAgent->new;
$ua->default_header('X-Api-Key' => $ENV{FREEAGENT_KEY});

sub call {
    my ($method, $url, $body) = @_;
    my $request = HTTP::Request->new($method, $url);
    if ($body) {
        $request->content_type('application/json');
        $request->content(encode_json($body));
    }
    my $response = $ua->request($request);
    die "$method $url: " . $response->status_line unless $response->is_success;
    return $response;
}

sub expect {
    my ($got, $want) = @_;
    die "got $got, want $want" unless $got eq $want;
}

my $answer  = call(POST => "$api/contacts", { contact => { organisation_name => 'Acme' } });
my $created = decode_json($answer->content)->{contact}{url};
expect($answer->header('Location'), $created);

my @contacts;
for (my $page = "$api/contacts?per_page=10"; $page;) {
    $answer = call(GET => $page);
    push @contacts, @{ decode_json($answer->content)->{contacts} };
    ($page) = ($answer->header('Link') // '') =~ /<([^>]*)>; rel='next'/;
}
expect(scalar @contacts, 26);
expect(decode_json(call(GET => $created)->content)->{contact}{url}, $created);

my $project = call(POST => "$api/projects", { project => { name => 'Roof', contact => $created } })->header('Location');
my $first = $contacts[0]{url};
call(PUT => $project, { project => { contact => $first } });
expect(decode_json(call(GET => $project)->content)->{project}{contact}, $first);
call(DELETE => $_) for $project, $created;
