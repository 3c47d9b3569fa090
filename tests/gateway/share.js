// Visits a public share as browsers and programs do, and prints `ok NAME` or `FAIL NAME` per claim. The local server
// is this program's own, and `peer share` is started by it.
// usage: node share.js PEER SERVER_URL
'use strict';
const assert = require('assert');
const net = require('net');
const { spawn } = require('child_process');
const visitor = require('./visitor');

const [peer, server] = process.argv.slice(2);
const port = Number(new URL(server).port);
const host = `nas.example.test:${port}`;
const children = [];
const ask = (path, options) => visitor.ask(port, host, path, options);

function answer(request, response) {
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
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify(request.headers));
}

// The frame of a short text, masked with zeros (RFC 6455 §5.2).
function frame(text) {
  return Buffer.concat([Buffer.from([0x81, 0x80 | text.length, 0, 0, 0, 0]), Buffer.from(text)]);
}

// Resolves with what a stream has said, as soon as that ends so.
function saysUntil(stream, end) {
  return new Promise((resolve, reject) => {
    let said = '';
    const hear = (data) => {
      said += data.toString('latin1');
      if (!said.endsWith(end)) return;
      stream.off('data', hear);
      resolve(said);
    };
    stream.on('data', hear).once('close', () => reject(new Error(`it ended after ${JSON.stringify(said)}`)));
  });
}

const claims = (local) => ({
  async the_host_is_the_local_servers_and_the_visitors_goes_beside_it() {
    const seen = JSON.parse((await ask('/')).body);
    assert.deepStrictEqual(
      [seen.host, seen['x-forwarded-host'], seen['x-forwarded-for'], seen['x-forwarded-proto']],
      [`127.0.0.1:${local.port}`, host, '127.0.0.1', 'http']);
  },
  megabytes_come_back_the_same: () => visitor.megabytes_come_back_the_same(port, host, 16),
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
  an_event_arrives_while_the_answer_goes_on: () =>
    visitor.an_event_arrives_while_the_answer_goes_on(port, host, local),
  async wscat_talks_with_the_echo_server() {
    const wscat = require.resolve('wscat/bin/wscat');
    const args = [wscat, '--connect', `ws://127.0.0.1:${port}/welcome`, '--header', `Host:${host}`];
    const client = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    children.push(client);
    // What the server says right behind its handshake is the sign that wscat is connected.
    await saysUntil(client.stdout, 'welcome\n');
    for (const text of ['hello', 'ä€😀', 'x'.repeat(200000)]) {
      const heard = saysUntil(client.stdout, `${Buffer.from(text).toString('latin1')}\n`);
      client.stdin.write(`${text}\n`);
      await heard;
    }
    const ended = new Promise((resolve) => client.once('exit', resolve));
    client.stdin.end();
    assert.strictEqual(await ended, 0);
  },
  async what_is_said_right_behind_the_handshake_arrives_on_both_sides() {
    const stream = net.connect(port, '127.0.0.1');
    const heard = saysUntil(stream, '\x81\x05early');
    stream.write(Buffer.concat([
      Buffer.from([
        'GET /welcome HTTP/1.1', `Host: ${host}`, 'Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13',
        'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==', '', '',
      ].join('\r\n')), frame('early'),
    ]));
    const [head, frames] = (await heard).split('\r\n\r\n');
    assert.match(head, /^HTTP\/1\.1 101 [^]*s3pPLMBiTxaQ9kYGzzhZRbK\+xOo=/);
    assert.strictEqual(frames, '\x81\x07welcome\x81\x05early');
    stream.destroy();
  },
  async a_thousand_websockets_are_open_and_a_page_is_answered_at_once() {
    const open = [];
    while (open.length < 1000) open.push(...(await Promise.all(Array.from({ length: 100 }, () => visitor.socket(port, host)))));
    const began = Date.now();
    assert.strictEqual((await ask('/')).status, 200);
    assert(Date.now() - began < 1000, `${Date.now() - began} ms`);
    for (const ws of [open[0], open[500], open[999]]) assert.strictEqual(String(await visitor.echo(ws, 'hello')), 'hello');
    await visitor.a_large_message_and_the_reason_of_a_close_pass(open[7]);
    open.forEach((ws) => ws.terminate());
  },
});

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

visitor.run('browsers_reach_a_public_share', children, async () => {
  const local = await visitor.origin(answer);
  assert.strictEqual((await share(local.port)).url, `http://${host}`);
  return claims(local);
});
