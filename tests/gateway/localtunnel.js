// Drives the unmodified `lt` against a gateway on 127.0.0.1, and prints `ok NAME` or `FAIL NAME` per claim.
// usage: node localtunnel.js PORT LT
'use strict';
const assert = require('assert');
const http = require('http');
const { spawn } = require('child_process');
const visitor = require('./visitor');

const [port, lt] = [Number(process.argv[2]), process.argv[3]];
const clients = [];
const ask = (name, path, options) => visitor.ask(port, `${name}.example.test:${port}`, path, options);

function answer(request, response) {
  if (request.url === '/die') return request.socket.destroy();
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify(request.headers));
}

// Resolves with the name in the URL that lt prints.
function share(localPort, ...more) {
  const args = ['--host', `http://127.0.0.1:${port}`, '--port', String(localPort), ...more];
  const client = spawn(process.execPath, [lt, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  clients.push(client);
  return new Promise((resolve, reject) => {
    let said = '';
    client.stdout.on('data', (data) => {
      said += data;
      const url = /your url is: http:\/\/([a-z0-9-]+)\.example\.test:(\d+)\s/.exec(said);
      if (url) resolve({ name: url[1], port: Number(url[2]), client });
    });
    client.on('exit', () => reject(new Error(`lt ended: ${said}`)));
  });
}

async function status(name) {
  const { body } = await ask('', `/api/tunnels/${name}/status`, { headers: { host: '127.0.0.1' } });
  return JSON.parse(body).connected_sockets;
}

async function until(what, condition) {
  for (const began = Date.now(); !(await condition()); ) {
    assert(Date.now() - began < 10000, `never happened: ${what}`);
  }
}

const claims = (local, { chosen, random, localHost }) => ({
  async chosen_and_random_names_have_urls_of_the_server() {
    assert.deepStrictEqual([chosen.name, chosen.port, random.port], ['forwstest', port, port]);
    assert.match(random.name, /^[a-z]+-[a-z]+-[a-z]+-[a-z0-9]{7}$/);
  },
  async headers_arrive_and_a_false_origin_does_not() {
    const { status, body } = await ask(chosen.name, '/', { headers: { 'x-forwarded-for': '6.6.6.6', 'x-mine': 'yes' } });
    const seen = JSON.parse(body);
    assert.strictEqual(status, 200);
    assert.deepStrictEqual([seen['x-forwarded-for'], seen['x-mine']], ['127.0.0.1', 'yes']);
  },
  megabytes_come_back_the_same: () =>
    visitor.megabytes_come_back_the_same(port, `${random.name}.example.test`, 8),
  async local_host_is_rewritten_in_every_request() {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    for (let n = 0; n < 4; n++) {
      const { body } = await ask(localHost.name, '/', { agent });
      assert.strictEqual(JSON.parse(body).host, '127.0.0.1');
    }
    agent.destroy();
  },
  an_event_arrives_while_the_answer_goes_on: () =>
    visitor.an_event_arrives_while_the_answer_goes_on(port, `${chosen.name}.example.test`, local),
  async a_dozen_websockets_leave_room_for_a_request() {
    const open = await Promise.all(Array.from({ length: 16 }, () => visitor.socket(port, `${chosen.name}.example.test`)));
    for (const ws of open) assert.strictEqual(String(await visitor.echo(ws, 'hello')), 'hello');
    const began = Date.now();
    assert.strictEqual((await ask(chosen.name, '/')).status, 200);
    assert(Date.now() - began < 2000);
    await visitor.a_large_message_and_the_reason_of_a_close_pass(open[0]);
    open.forEach((ws) => ws.terminate());
  },
  async an_origin_that_dies_or_is_unknown_is_answered_at_once() {
    const began = Date.now();
    assert.strictEqual((await ask(random.name, '/die', { method: 'POST' })).status, 502);
    assert.strictEqual((await ask('nobody-here', '/')).status, 404);
    assert.strictEqual((await ask('constructor', '/')).status, 404);
    assert(Date.now() - began < 2000);
  },
  async a_client_that_is_killed_gets_its_name_back() {
    chosen.client.kill('SIGKILL');
    await until('the client is gone', async () => (await status(chosen.name)) === 0);
    assert.strictEqual((await ask(chosen.name, '/')).status, 503);
    const again = await share(local.port, '--subdomain', 'forwstest');
    assert.strictEqual(again.name, 'forwstest');
    await until('it answers', async () => (await ask('forwstest', '/')).status === 200);
  },
});

visitor.run('localtunnel_client_works_unmodified', clients, async () => {
  const local = await visitor.origin(answer);
  const chosen = await share(local.port, '--subdomain', 'forwstest');
  const random = await share(local.port);
  const localHost = await share(local.port, '--subdomain', 'local-host', '--local-host', '127.0.0.1');
  return claims(local, { chosen, random, localHost });
});
