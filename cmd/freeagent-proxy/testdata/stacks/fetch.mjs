const api = `${process.env.FREEAGENT_URL}/v2`;

async function call(method, url, body) {
  const response = await fetch(url, {
    method,
    headers: { Authorization: `Bearer ${process.env.FREEAGENT_KEY}`, 'Content-Type': 'application/json' },
    body: body && JSON.stringify(body),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${method} ${url}: ${response.status} ${text}`);
  return { body: text && JSON.parse(text), headers: response.headers };
}

function expect(got, want) {
  if (got !== want) throw new Error(`got ${got}, want ${want}`);
}

let answer = await call('POST', `${api}/contacts`, { contact: { organisation_name: 'Acme' } });
const created = answer.body.contact.url;
expect(answer.headers.get('location'), created);

const contacts = [];
for (let page = `${api}/contacts?per_page=10`; page; page = answer.headers.get('link').match(/<([^>]*)>; rel='next'/)?.[1]) {
  answer = await call('GET', page);
  contacts.push(...answer.body.contacts);
}
expect(contacts.length, 26);
expect((await call('GET', created)).body.contact.url, created);

const project = (await call('POST', `${api}/projects`, { project: { name: 'Roof', contact: created } })).headers.get('location');
const first = contacts[0].url;
await call('PUT', project, { project: { contact: first } });
expect((await call('GET', project)).body.project.contact, first);
await call('DELETE', project);
await call('DELETE', created);
