require 'json'
require 'net/http'

API = "#{ENV.fetch('FREEAGENT_URL')}/v2"

# One connection for all.
HTTP = Net::HTTP.start(URI(API).host, URI(API).port)

def call(method, url, body = nil)
  request = Net::HTTP.const_get(method).new(URI(url))
  request.basic_auth('tests', ENV.fetch('FREEAGENT_KEY'))
  request.content_type = 'application/json'
  request.body = body.to_json if body
  response = HTTP.request(request)
  response.value # raises unless it is a success
  response
end

def expect(got, want)
  raise "got #{got}, want #{want}" unless got == want
end

answer = call(:Post, "#{API}/contacts", contact: { organisation_name: 'Acme' })
created = JSON.parse(answer.body)['contact']['url']
expect(answer['Location'], created)

contacts = []
page = "#{API}/contacts?per_page=10"
while page
  answer = call(:Get, page)
  contacts += JSON.parse(answer.body)['contacts']
  page = answer['Link'][/<([^>]*)>; rel='next'/, 1]
end
expect(contacts.size, 26)
expect(JSON.parse(call(:Get, created).body)['contact']['url'], created)

project = call(:Post, "#{API}/projects", project: { name: 'Roof', contact: created })['Location']
first = contacts.first['url']
call(:Put, project, project: { contact: first })
expect(JSON.parse(call(:Get, project).body)['project']['contact'], first)
call(:Delete, project)
call(:Delete, created)
