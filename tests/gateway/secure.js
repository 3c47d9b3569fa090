// Visits public shares over TLS as browsers do, and prints `ok NAME` or `FAIL NAME` per claim. The local server of `app` is
// this program's own, that of `files` is somewhere else; `peer share` is started by it for both.
// usage: node secure.js own|nginx PEER PORT CERTIFICATE FILES_PORT PLAIN_PORT
'use strict';
const assert = require('assert');
const fs = require('fs');
const http = require('http');
const http2 = require('http2');
const https = require('https');
const path = require('path');
const { spawn } = require('child_process');
const WebSocket = require('ws');
const zlib = require('zlib');

const [front, peer, port, certificate, filesPort, plainPort] = process.argv.slice(2);
const ca = fs.readFileSync(certificate);
const children = [];

function origin(request, response) {
  if (request.url === '/echo') {
    const parts = [];
    // Whole before a word of the answer: once that has begun, nginx sends no more of the body, whoever is behind it.
    return request.on('data', (part) => parts.push(part)).on('end', () => response.end(Buffer.concat(parts)));
  }
  if (request.url === '/events') {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    return response.write('data: first\n\n', () => (origin.events = response));
  }
  if (request.url === '/trailers') {
    response.writeHead(200, { trailer: 'x-sum' });
    response.addTrailers({ 'x-sum': '7' });
    return response.end('body');
  }
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify(request.headers));
}

function options(name, path, headers = {}) {
  const host = `${name}.localhost`;
  return { host: '127.0.0.1', port, servername: host, ca, path, headers: { host: `${host}:${port}`, ...headers } };
}

function ask(options, { body, through = https, method = body ? 'POST' : 'GET' } = {}) {
  return new Promise((resolve, reject) => {
    const request = through.request({ ...options, method }, (response) => {
      const parts = [];
      response.on('data', (part) => parts.push(part));
      response.on('end', () => resolve({ ...response, status: response.statusCode, headers: response.headers, body: Buffer.concat(parts) }));
      response.on('error', reject);
    });
    request.on('error', reject).end(body);
  });
}

// One HTTP/2 session, as a browser keeps it, and one request on it.
function session(name) {
  return http2.connect(`https://${name}.localhost:${port}`, { ca, host: '127.0.0.1', lookup: (_, o, done) => done(null, o.all ? [{ address: '127.0.0.1', family: 4 }] : '127.0.0.1', 4) });
}

function over2(client, path, { body, headers = {} } = {}) {
  return new Promise((resolve, reject) => {
    const stream = client.request({ ':path': path, ':method': body ? 'POST' : 'GET', ...headers });
    const answer = { parts: [] };
    stream.on('response', (head) => (answer.headers = head)).on('trailers', (trailers) => (answer.trailers = trailers));
    stream.on('data', (part) => answer.parts.push(part)).on('error', reject);
    stream.on('end', () => resolve({ ...answer, status: answer.headers[':status'], body: Buffer.concat(answer.parts) }));
    stream.end(body);
  });
}

function socket() {
  const { host } = options('app', '/').headers;
  const ws = new WebSocket(`wss://127.0.0.1:${port}/`, { ca, servername: 'app.localhost', headers: { host } });
  return new Promise((resolve, reject) => ws.on('open', () => resolve(ws)).on('error', reject));
}

// A WebSocket on one stream of such a session (RFC 8441): its frames are those of `ws`, which has no way to open it. What
// is sent at once goes right behind the request.
function socketOver2(client) {
  const stream = client.request({ ':method': 'CONNECT', ':protocol': 'websocket', ':path': '/', 'sec-websocket-version': '13' });
  const ws = new WebSocket(null, undefined, { autoPong: true });
  ws._isServer = false;
  ws.setSocket(stream, Buffer.alloc(0), { allowSynchronousEvents: true, maxPayload: 0, skipUTF8Validation: false });
  const head = new Promise((resolve, reject) => stream.on('response', resolve).on('error', reject));
  return { ws, head };
}

async function next(stream) {
  return String(await new Promise((resolve) => stream.once('data', resolve)));
}

const everywhere = {
  async the_url_is_the_fronts_own({ urls }) {
    assert.deepStrictEqual(urls, ['app', 'files'].map((name) => `https://${name}.localhost:${port}`));
  },
  async the_local_server_sees_the_visitor_and_its_scheme_whatever_that_claims() {
    const headers = { 'x-forwarded-for': '198.51.100.7', forwarded: 'for=198.51.100.7', 'x-forwarded-proto': 'http' };
    const seen = JSON.parse((await ask(options('app', '/', headers))).body);
    const [visitor] = seen['x-forwarded-for'].split(', ');
    assert.deepStrictEqual([visitor, seen['x-forwarded-proto'], seen['x-forwarded-host']], ['127.0.0.1', 'https', `app.localhost:${port}`]);
    assert(!JSON.stringify(seen).includes('198.51.100.7'), JSON.stringify(seen));
  },
  async megabytes_come_back_the_same() {
    const sent = require('crypto').randomBytes(8 << 20);
    assert(sent.equals((await ask(options('app', '/echo'), { body: sent })).body));
    const client = session('app');
    assert(sent.equals((await over2(client, '/echo', { body: sent })).body));
    client.close();
  },
  async an_event_arrives_while_the_answer_goes_on() {
    const client = session('app');
    const response = await new Promise((resolve) => https.get(options('app', '/events'), resolve));
    for (const stream of [response, client.request({ ':path': '/events' })]) {
      assert.strictEqual(await next(stream), 'data: first\n\n');
      const second = next(stream);
      origin.events.write('data: second\n\n');
      assert.strictEqual(await second, 'data: second\n\n');
      stream.destroy();
    }
    client.close();
  },
  async a_websocket_passes_both_ways() {
    const ws = await socket();
    for (const message of ['hello', 'x'.repeat(1 << 20)]) {
      ws.send(message);
      assert.strictEqual(String(await new Promise((resolve) => ws.once('message', resolve))), message);
    }
    ws.close();
  },
  async a_page_and_its_parts_come_over_one_connection_of_http_2() {
    const client = session('app');
    const pages = await Promise.all(Array.from({ length: 60 }, (_, i) => over2(client, `/${i}`, { headers: { cookie: `n=${i}` } })));
    pages.forEach((page, i) => assert.strictEqual(JSON.parse(page.body).cookie, `n=${i}`));
    client.close();
  },
  async a_file_of_nginx_comes_whole_in_pieces_compressed_and_not_at_all() {
    const agent = new https.Agent({ keepAlive: true, maxSockets: 1 });
    const get = (path, headers) => ask({ ...options('files', path, headers), agent });
    const whole = await get('/file.txt', {});
    assert.deepStrictEqual([whole.status, whole.body.length, whole.headers['accept-ranges']], [200, 2e6, 'bytes']);
    const piece = await get('/file.txt', { range: 'bytes=1000-1999' });
    assert.deepStrictEqual([piece.status, piece.headers['content-range']], [206, 'bytes 1000-1999/2000000']);
    assert(piece.body.equals(whole.body.subarray(1000, 2000)));
    const parts = await get('/file.txt', { range: 'bytes=0-0,-1' });
    assert.match(parts.headers['content-type'], /^multipart\/byteranges/);
    const packed = await get('/file.txt', { 'accept-encoding': 'gzip' });
    assert.strictEqual(packed.headers['content-encoding'], 'gzip');
    assert(zlib.gunzipSync(packed.body).equals(whole.body));
    const known = await get('/file.txt', { 'if-none-match': whole.headers.etag });
    assert.deepStrictEqual([known.status, known.body.length], [304, 0]);
    assert.strictEqual((await get('/nothing', {})).status, 404);
    agent.destroy();
  },
  async a_sharer_that_was_killed_has_its_name_back_at_once({ urls, app }) {
    const client = session('app');
    assert.strictEqual((await over2(client, '/')).status, 200);
    // Without a goodbye: the server holds its connection for another 20 s.
    app.child.kill('SIGKILL');
    await new Promise((resolve) => app.child.once('exit', resolve));
    const since = Date.now();
    assert.strictEqual(await share('app', app.target).url, urls[0]);
    // By the session that there was, too.
    const answers = await Promise.all([over2(client, '/'), ask(options('app', '/'))]);
    assert.deepStrictEqual(answers.map(({ status }) => status), [200, 200]);
    assert(Date.now() - since < 10000, `${Date.now() - since} ms`);
    client.close();
  },
};

const only = {
  own: {
    async trailers_come_over_http_2() {
      const client = session('app');
      assert.strictEqual((await over2(client, '/trailers')).trailers['x-sum'], '7');
      client.close();
    },
    async a_thousand_websockets_are_opened_on_the_connections_of_eight_pages() {
      const clients = Array.from({ length: 8 }, () => session('app'));
      for (const client of clients) {
        assert.strictEqual((await over2(client, '/')).status, 200);
        assert.strictEqual(client.remoteSettings.enableConnectProtocol, true);
      }
      const heard = (ws) => new Promise((resolve) => ws.once('message', (data) => resolve(String(data))));
      const open = Array.from({ length: 1000 }, (_, i) => socketOver2(clients[i % 8]));
      await Promise.all(open.map(async ({ ws, head }, i) => {
        const early = heard(ws);
        ws.send(`early ${i}`);
        const told = await head;
        assert.deepStrictEqual([told[':status'], told['sec-websocket-accept']], [200, undefined]);
        assert.strictEqual(await early, `early ${i}`);
      }));
      const [{ ws }] = open;
      const large = heard(ws);
      ws.send('x'.repeat(1 << 20));
      assert.strictEqual(await large, 'x'.repeat(1 << 20));
      const began = Date.now();
      assert.strictEqual((await over2(clients[0], '/')).status, 200);
      assert(Date.now() - began < 1000, `${Date.now() - began} ms`);
      const ended = open.map(({ ws }) => new Promise((resolve) => ws.once('close', (code, reason) => resolve([code, String(reason)]))));
      open.forEach(({ ws }) => ws.close(4001, 'done'));
      for (const end of await Promise.all(ended)) assert.deepStrictEqual(end, [4001, 'done']);
      clients.forEach((client) => client.close());
    },
  },
  nginx: {
    async who_is_not_the_proxy_is_not_believed() {
      const headers = { host: 'app.localhost', 'x-forwarded-for': '198.51.100.7', 'x-forwarded-proto': 'https' };
      const answer = await ask({ host: '127.0.0.1', port: plainPort, path: '/', headers }, { through: http });
      const seen = JSON.parse(answer.body);
      assert.deepStrictEqual([seen['x-forwarded-for'], seen['x-forwarded-proto']], ['127.0.0.1', 'http']);
    },
  },
};

function share(name, target) {
  const args = ['share', String(target), '--server', `https://localhost:${port}`, '--public', '--name', name, '--json'];
  // An identity of its own, the same each time.
  const home = path.join(path.dirname(certificate), `${front}-${name}`);
  const env = { ...process.env, XDG_STATE_HOME: home, SSL_CERT_FILE: certificate };
  const child = spawn(peer, args, { stdio: ['ignore', 'pipe', 'inherit'], env });
  children.push(child);
  const url = new Promise((resolve, reject) => {
    child.on('exit', () => reject(new Error('peer share ended')));
    let said = '';
    child.stdout.on('data', (data) => {
      said += data;
      const ready = said.split('\n').slice(0, -1).map((line) => JSON.parse(line)).find((event) => event.event === 'ready');
      if (ready) resolve(ready.url);
    });
  });
  return { child, target, url };
}

async function main() {
  const local = http.createServer(origin);
  new WebSocket.WebSocketServer({ server: local }).on('connection', (ws) => ws.on('message', (data) => ws.send(data)));
  await new Promise((resolve) => local.listen(0, '127.0.0.1', resolve));
  const app = share('app', local.address().port);
  const urls = await Promise.all([app.url, share('files', filesPort).url]);
  let failed = 0;
  for (const [name, claim] of Object.entries({ ...everywhere, ...only[front] })) {
    try {
      await Promise.race([claim({ urls, app }), new Promise((_, reject) => setTimeout(reject, 30000, new Error('late')).unref())]);
      console.log(`ok ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`FAIL ${name}`);
      console.error(error);
    }
  }
  children.forEach((child) => child.kill());
  process.exit(failed ? 1 : 0);
}

main();
