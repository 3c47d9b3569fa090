// Visits a public share as browsers and programs do, and prints `ok NAME` or `FAIL NAME` per claim. The local server
// is this program's own, and `peer share` is started by it.
// usage: node share.js PEER SERVER_URL
'use strict';
const assert = require('assert');
const http = require('http');
const { spawn } = require('child_process');
const WebSocket = require('ws');

const [peer, server] = process.argv.slice(2);
const port = Number(new URL(server).port);
const host = `nas.example.test:${port}`;
const children = [];

function origin(request, response) {
  if (request.url === '/echo') return request.pipe(response);
  if (request.url === '/early') {
    response.writeEarlyHints({ link: '</style.css>; rel=preload' });
    return response.end('late');
  }
  if (request.url === '/continue') return request.resume().on('end', () => response.end('continued'));
  if (request.url === '/range') {
    const [from, to] = /bytes=(\d+)-(\d+)/.exec(request.headers.range).slice(1).map(Number);
    // A file of 4 GiB, of which nothing is there but what is asked for.
    response.writeHead(206, {
      'content-length': to - from + 1, 'content-range': `bytes ${from}-${to}/${4 * 2 ** 30}`,
    });
    return response.end(Buffer.alloc(to - from + 1, 'x'));
  }
  if (request.url === '/sized') {
    response.writeHead(200, { 'content-length': 12345 });
    return response.end(request.method === 'HEAD' ? undefined : Buffer.alloc(12345));
  }
  if (request.url === '/none') return response.writeHead(204).end();
  if (request.url === '/events') {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    return response.write('data: first\n\n', () => (origin.events = response));
  }
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify(request.headers));
}

function ask(path, { method = 'GET', body, headers = {}, onRequest } = {}) {
  return new Promise((resolve, reject) => {
    const options = { host: '127.0.0.1', port, path, method, headers: { host, ...headers } };
    const request = http.request(options, (response) => {
      const parts = [];
      response.on('data', (part) => parts.push(part));
      response.on('end', () => resolve({ response, status: response.statusCode, body: Buffer.concat(parts) }));
    });
    request.on('error', reject);
    if (onRequest) return onRequest(request);
    request.end(body);
  });
}

function socket() {
  const ws = new WebSocket(`ws://127.0.0.1:${port}/`, { headers: { host } });
  return new Promise((resolve, reject) => ws.on('open', () => resolve(ws)).on('error', reject));
}

function echo(ws, message) {
  return new Promise((resolve) => {
    ws.once('message', (data) => resolve(data));
    ws.send(message);
  });
}

const claims = {
  async the_host_is_the_local_servers_and_the_visitors_goes_beside_it({ localPort }) {
    const seen = JSON.parse((await ask('/')).body);
    assert.deepStrictEqual(
      [seen.host, seen['x-forwarded-host'], seen['x-forwarded-for'], seen['x-forwarded-proto']],
      [`127.0.0.1:${localPort}`, host, '127.0.0.1', 'http']);
  },
  async megabytes_come_back_the_same() {
    const sent = require('crypto').randomBytes(16 << 20);
    assert(sent.equals((await ask('/echo', { method: 'POST', body: sent })).body));
  },
  async a_piece_of_a_file_of_4_gib_is_a_piece() {
    const range = `bytes=${4 * 2 ** 30 - 100000}-${4 * 2 ** 30 - 1}`;
    const { response, status, body } = await ask('/range', { headers: { range } });
    assert.deepStrictEqual([status, body.length], [206, 100000]);
    assert.strictEqual(response.headers['content-range'], `bytes ${range.slice(6)}/${4 * 2 ** 30}`);
  },
  async answers_without_content_have_none_and_heads_have_their_length() {
    const none = await ask('/none');
    assert.deepStrictEqual([none.status, none.body.length], [204, 0]);
    const head = await ask('/sized', { method: 'HEAD' });
    assert.deepStrictEqual([head.status, head.body.length, head.response.headers['content-length']], [200, 0, '12345']);
    assert.strictEqual((await ask('/sized')).body.length, 12345);
  },
  async hints_come_before_the_answer() {
    let hinted;
    const { body } = await ask('/early', {
      onRequest: (request) => request.on('information', (info) => (hinted = info.statusCode)).end(),
    });
    assert.deepStrictEqual([hinted, String(body)], [103, 'late']);
  },
  async a_body_waits_until_the_local_server_wants_it() {
    const { body } = await ask('/continue', {
      method: 'POST', headers: { expect: '100-continue', 'content-length': 5 },
      onRequest: (request) => request.on('continue', () => request.end('hello')).flushHeaders(),
    });
    assert.strictEqual(String(body), 'continued');
  },
  async an_event_arrives_while_the_answer_goes_on() {
    const response = await new Promise((resolve) =>
      http.get({ host: '127.0.0.1', port, path: '/events', headers: { host } }, resolve));
    const next = () => new Promise((resolve) => response.once('data', (data) => resolve(String(data))));
    assert.strictEqual(await next(), 'data: first\n\n');
    const second = next();
    origin.events.write('data: second\n\n');
    assert.strictEqual(await second, 'data: second\n\n');
    response.destroy();
  },
  async a_thousand_websockets_are_open_and_a_page_is_answered_at_once() {
    const open = [];
    while (open.length < 1000) open.push(...(await Promise.all(Array.from({ length: 100 }, socket))));
    const began = Date.now();
    assert.strictEqual((await ask('/')).status, 200);
    assert(Date.now() - began < 1000, `${Date.now() - began} ms`);
    for (const ws of [open[0], open[500], open[999]]) assert.strictEqual(String(await echo(ws, 'hello')), 'hello');
    const large = require('crypto').randomBytes(4 << 20);
    assert(large.equals(await echo(open[7], large)));
    const closed = new Promise((resolve) => open[0].on('close', (code, reason) => resolve([code, String(reason)])));
    open[0].close(4001, 'bye');
    assert.deepStrictEqual(await closed, [4001, 'bye']);
    open.forEach((ws) => ws.terminate());
  },
};

// Resolves with the `ready` event of a public share.
function share(localPort) {
  const args = ['share', String(localPort), '--server', server, '--public', '--name', 'nas', '--json'];
  const child = spawn(peer, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  children.push(child);
  return new Promise((resolve, reject) => {
    let said = '';
    child.stdout.on('data', (data) => {
      said += data;
      const ready = said.split('\n').slice(0, -1).map(JSON.parse).find((event) => event.event === 'ready');
      if (ready) resolve(ready);
    });
    child.on('exit', () => reject(new Error(`peer share ended: ${said}`)));
  });
}

async function main() {
  const local = http.createServer(origin);
  new WebSocket.WebSocketServer({ server: local }).on('connection', (ws) =>
    ws.on('message', (data, binary) => ws.send(data, { binary })));
  await new Promise((resolve) => local.listen(0, '127.0.0.1', resolve));
  const localPort = local.address().port;
  const ready = await share(localPort);
  assert.strictEqual(ready.url, `http://${host}`);
  let failed = 0;
  for (const [name, claim] of Object.entries(claims)) {
    try {
      await claim({ localPort });
      console.log(`ok ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`FAIL ${name}\n${error.stack}`);
    }
  }
  return failed;
}

process.on('exit', () => children.forEach((child) => child.kill('SIGKILL')));
main().then(
  (failed) => process.exit(failed ? 1 : 0),
  (error) => {
    console.log(`FAIL browsers_reach_a_public_share\n${error.stack}`);
    process.exit(1);
  });
