// Many WebSockets at once. usage: node gateway_websockets.js origin: the echo server, which prints its port;
// node gateway_websockets.js PORT HOST COUNT: the visitors, from networks of 1000 each, who stay until a line comes.
'use strict';
const assert = require('assert');
const http = require('http');
const WebSocket = require('ws');

function origin() {
  const server = http.createServer((request, response) => response.end('hello\n'));
  new WebSocket.WebSocketServer({ server, perMessageDeflate: false }).on('connection', (ws) =>
    ws.on('message', (data, binary) => ws.send(data, { binary })));
  server.listen(0, '127.0.0.1', 4096, () => console.log(server.address().port));
}

const [port, host, count] = [Number(process.argv[2]), process.argv[3], Number(process.argv[4])];

function open(number) {
  const options = { headers: { host }, localAddress: `127.0.${1 + Math.floor(number / 1000)}.1`, perMessageDeflate: false };
  const ws = new WebSocket(`ws://127.0.0.1:${port}/`, options);
  return new Promise((resolve, reject) => {
    ws.once('open', () => resolve(ws));
    ws.once('error', (error) => reject(new Error(`WebSocket ${number}: ${error.message}`)));
  });
}

function page() {
  const began = process.hrtime.bigint();
  return new Promise((resolve, reject) => {
    http.get({ host: '127.0.0.1', port, path: '/', headers: { host } }, (response) => {
      assert.strictEqual(response.statusCode, 200);
      response.resume().on('end', () => resolve(Number(process.hrtime.bigint() - began) / 1e6));
    }).on('error', reject);
  });
}

function echo(ws, text) {
  return new Promise((resolve, reject) => {
    ws.once('message', (data) => resolve(String(data)));
    ws.once('close', () => reject(new Error('it was closed')));
    ws.send(text);
  });
}

async function visitors() {
  const [began, sockets] = [Date.now(), []];
  while (sockets.length < count) {
    const more = Math.min(100, count - sockets.length);
    sockets.push(...(await Promise.all(Array.from({ length: more }, (_, n) => open(sockets.length + n)))));
  }
  console.log(`open: ${sockets.length} WebSockets after ${((Date.now() - began) / 1000).toFixed(1)} s`);
  await new Promise((resolve) => process.stdin.once('data', resolve));
  const pages = [];
  for (let n = 0; n < 200; n++) pages.push(await page());
  pages.sort((a, b) => a - b);
  console.log(`a page beside them: p50 ${pages[100].toFixed(1)} ms, p99 ${pages[197].toFixed(1)} ms`);
  const since = Date.now();
  for (let from = 0; from < count; from += 500) {
    const some = sockets.slice(from, from + 500);
    await Promise.all(some.map(async (ws, n) => assert.strictEqual(await echo(ws, `hello ${n}`), `hello ${n}`)));
  }
  console.log(`an echo on each of them: ${((Date.now() - since) / 1000).toFixed(1)} s`);
  process.exit(0);
}

if (process.argv[2] === 'origin') origin();
else {
  visitors().catch((error) => {
    console.log(error.stack);
    process.exit(1);
  });
}
