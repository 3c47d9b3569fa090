// What every visitor does, and how its claims are told, for the programs in this directory.
'use strict';
const assert = require('assert');
const http = require('http');
const WebSocket = require('ws');

// Asks the gateway on 127.0.0.1 for PATH of HOST, and resolves with the whole answer.
exports.ask = (port, host, path, { method = 'GET', body, headers = {}, agent, onRequest } = {}) =>
  new Promise((resolve, reject) => {
    const options = { host: '127.0.0.1', port, path, method, agent, headers: { host, ...headers } };
    const request = http.request(options, (response) => {
      const parts = [];
      response.on('data', (part) => parts.push(part));
      response.on('end', () => resolve({ response, status: response.statusCode, body: Buffer.concat(parts) }));
    });
    request.on('error', reject);
    if (onRequest) return onRequest(request);
    request.end(body);
  });

// An open WebSocket.
exports.socket = (port, host) => {
  const ws = new WebSocket(`ws://127.0.0.1:${port}/`, { headers: { host } });
  return new Promise((resolve, reject) => ws.on('open', () => resolve(ws)).on('error', reject));
};

// What an echoing WebSocket answers.
exports.echo = (ws, message) =>
  new Promise((resolve) => {
    ws.once('message', (data) => resolve(data));
    ws.send(message);
  });

// A local server that answers by `answer`, echoes on its WebSockets, says welcome first on those at
// /welcome, and serves events at /events, which `send` sends.
exports.origin = async (answer) => {
  let events;
  const server = http.createServer((request, response) => {
    if (request.url === '/echo') return request.pipe(response);
    if (request.url !== '/events') return answer(request, response);
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write('data: first\n\n', () => (events = response));
  });
  // A welcome leaves in one piece with the handshake.
  server.on('upgrade', (request, socket) => {
    socket.cork();
    process.nextTick(() => socket.uncork());
  });
  new WebSocket.WebSocketServer({ server }).on('connection', (ws, request) => {
    ws.on('message', (data, binary) => ws.send(data, { binary }));
    if (request.url === '/welcome') ws.send('welcome');
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { port: server.address().port, send: (text) => events.write(text) };
};

exports.an_event_arrives_while_the_answer_goes_on = async (port, host, origin) => {
  const response = await new Promise((resolve) =>
    http.get({ host: '127.0.0.1', port, path: '/events', headers: { host } }, resolve));
  const next = () => new Promise((resolve) => response.once('data', (data) => resolve(String(data))));
  assert.strictEqual(await next(), 'data: first\n\n');
  const second = next();
  origin.send('data: second\n\n');
  assert.strictEqual(await second, 'data: second\n\n');
  response.destroy();
};

exports.megabytes_come_back_the_same = async (port, host, megabytes) => {
  const sent = require('crypto').randomBytes(megabytes << 20);
  assert(sent.equals((await exports.ask(port, host, '/echo', { method: 'POST', body: sent })).body));
};

exports.a_large_message_and_the_reason_of_a_close_pass = async (ws) => {
  const large = require('crypto').randomBytes(4 << 20);
  assert(large.equals(await exports.echo(ws, large)));
  const closed = new Promise((resolve) => ws.on('close', (code, reason) => resolve([code, String(reason)])));
  ws.close(4001, 'bye');
  assert.deepStrictEqual(await closed, [4001, 'bye']);
};

// Prints `ok NAME` or `FAIL NAME` per claim that `prepare` resolves with, kills `children`, and exits.
exports.run = async (name, children, prepare) => {
  process.on('exit', () => children.forEach((child) => child.kill('SIGKILL')));
  let failed = 0;
  const tell = (claim, error) => {
    failed += error ? 1 : 0;
    console.log(error ? `FAIL ${claim}\n${error.stack}` : `ok ${claim}`);
  };
  try {
    for (const [claim, holds] of Object.entries(await prepare())) {
      await holds().then(() => tell(claim), (error) => tell(claim, error));
    }
  } catch (error) {
    tell(name, error);
  }
  process.exit(failed ? 1 : 0);
};
