// Drives the unmodified `lt` against a gateway on 127.0.0.1, and prints `ok NAME` or `FAIL NAME` per claim.
// usage: node localtunnel.js PORT LT
'use strict';
const assert = require('assert');
const http = require('http');
const net = require('net');
const { spawn } = require('child_process');
const WebSocket = require('ws');

const [port, lt] = [Number(process.argv[2]), process.argv[3]];
const clients = [];

function origin(request, response) {
  const path = request.url;
  if (path === '/echo') return request.pipe(response);
  if (path === '/die') return request.socket.destroy();
  if (path === '/events') {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    return response.write('data: first\n\n', () => (origin.events = response));
  }
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

function ask(name, path, { method = 'GET', body, headers = {}, agent } = {}) {
  return new Promise((resolve, reject) => {
    const host = `${name}.example.test:${port}`;
    const options = { host: '127.0.0.1', port, path, method, agent, headers: { host, ...headers } };
    const request = http.request(options, (response) => {
      const parts = [];
      response.on('data', (part) => parts.push(part));
      response.on('end', () => resolve({ status: response.statusCode, body: Buffer.concat(parts) }));
    });
    request.on('error', reject);
    request.end(body);
  });
}

function socket(name) {
  const ws = new WebSocket(`ws://127.0.0.1:${port}/`, { headers: { host: `${name}.example.test` } });
  return new Promise((resolve, reject) => ws.on('open', () => resolve(ws)).on('error', reject));
}

function echo(ws, message) {
  return new Promise((resolve) => {
    ws.once('message', (data) => resolve(data));
    ws.send(message);
  });
}

async function status(name) {
  const { body } = await ask('', `/api/tunnels/${name}/status`, { headers: { host: '127.0.0.1' } });
  return JSON.parse(body).connected_sockets;
}

async function until(what, condition) {
  for (const began = Date.now(); !(await condition()); ) {
    assert(Date.now() - began < 10000, `never happened: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const claims = {
  async chosen_and_random_names_have_urls_of_the_server({ chosen, random }) {
    assert.deepStrictEqual([chosen.name, chosen.port, random.port], ['forwstest', port, port]);
    assert.match(random.name, /^[a-z]+-[a-z]+-[a-z]+-[a-z0-9]{7}$/);
  },
  async headers_arrive_and_a_false_origin_does_not({ chosen }) {
    const { status, body } = await ask(chosen.name, '/', { headers: { 'x-forwarded-for': '6.6.6.6', 'x-mine': 'yes' } });
    const seen = JSON.parse(body);
    assert.strictEqual(status, 200);
    assert.deepStrictEqual([seen['x-forwarded-for'], seen['x-mine']], ['127.0.0.1', 'yes']);
  },
  async megabytes_come_back_the_same({ random }) {
    const sent = require('crypto').randomBytes(8 << 20);
    const { body } = await ask(random.name, '/echo', { method: 'POST', body: sent });
    assert(sent.equals(body));
  },
  async local_host_is_rewritten_in_every_request({ localHost }) {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    for (let n = 0; n < 4; n++) {
      const { body } = await ask(localHost.name, '/', { agent });
      assert.strictEqual(JSON.parse(body).host, '127.0.0.1');
    }
    agent.destroy();
  },
  async an_event_arrives_while_the_answer_goes_on({ chosen }) {
    const response = await new Promise((resolve) => {
      http.get({ host: '127.0.0.1', port, path: '/events', headers: { host: `${chosen.name}.example.test` } }, resolve);
    });
    const next = () => new Promise((resolve) => response.once('data', (data) => resolve(String(data))));
    assert.strictEqual(await next(), 'data: first\n\n');
    const second = next();
    origin.events.write('data: second\n\n');
    assert.strictEqual(await second, 'data: second\n\n');
    response.destroy();
  },
  async a_dozen_websockets_leave_room_for_a_request({ chosen }) {
    const open = await Promise.all(Array.from({ length: 16 }, () => socket(chosen.name)));
    for (const ws of open) assert.strictEqual(String(await echo(ws, 'hello')), 'hello');
    const large = require('crypto').randomBytes(4 << 20);
    assert(large.equals(await echo(open[0], large)));
    const began = Date.now();
    assert.strictEqual((await ask(chosen.name, '/')).status, 200);
    assert(Date.now() - began < 2000);
    const closed = new Promise((resolve) => open[0].on('close', (code, reason) => resolve([code, String(reason)])));
    open[0].close(4001, 'bye');
    assert.deepStrictEqual(await closed, [4001, 'bye']);
    open.forEach((ws) => ws.terminate());
  },
  async an_origin_that_dies_or_is_unknown_is_answered_at_once({ random }) {
    const began = Date.now();
    assert.strictEqual((await ask(random.name, '/die', { method: 'POST' })).status, 502);
    assert.strictEqual((await ask('nobody-here', '/')).status, 404);
    assert.strictEqual((await ask('constructor', '/')).status, 404);
    assert(Date.now() - began < 2000);
  },
  async a_client_that_is_killed_gets_its_name_back({ chosen, localPort }) {
    chosen.client.kill('SIGKILL');
    await until('the client is gone', async () => (await status(chosen.name)) === 0);
    assert.strictEqual((await ask(chosen.name, '/')).status, 503);
    const again = await share(localPort, '--subdomain', 'forwstest');
    assert.strictEqual(again.name, 'forwstest');
    await until('it answers', async () => (await ask('forwstest', '/')).status === 200);
  },
};

async function main() {
  const server = http.createServer(origin);
  new WebSocket.WebSocketServer({ server }).on('connection', (ws) =>
    ws.on('message', (data, binary) => ws.send(data, { binary })));
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const localPort = server.address().port;
  const chosen = await share(localPort, '--subdomain', 'forwstest');
  const random = await share(localPort);
  const localHost = await share(localPort, '--subdomain', 'local-host', '--local-host', '127.0.0.1');
  let failed = 0;
  for (const [name, claim] of Object.entries(claims)) {
    try {
      await claim({ chosen, random, localHost, localPort });
      console.log(`ok ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`FAIL ${name}\n${error.stack}`);
    }
  }
  return failed;
}

process.on('exit', () => clients.forEach((client) => client.kill('SIGKILL')));
main().then(
  (failed) => process.exit(failed ? 1 : 0),
  (error) => {
    console.log(`FAIL localtunnel_client_works_unmodified\n${error.stack}`);
    process.exit(1);
  });
