// Sends each event to all who listen, directly and through each side, and says by how much the sides' are later than the
// direct one. usage: node gateway_events.js LOCAL_PORT EVENTS MILLISECONDS NAME=PORT=HOST…
'use strict';
const assert = require('assert');
const http = require('http');

const [local, events, every] = process.argv.slice(2, 5).map(Number);
const sides = process.argv.slice(5).map((word) => word.split('='));
const listeners = [];

function listen(port, host) {
  return new Promise((resolve, reject) => {
    const request = http.get({ host: '127.0.0.1', port, path: '/', headers: { host } }, (response) => {
      assert.strictEqual(response.statusCode, 200);
      const times = [];
      let came = '';
      response.on('data', (data) => {
        const now = process.hrtime.bigint();
        came += data;
        for (let end; (end = came.indexOf('\n\n')) >= 0; came = came.slice(end + 2)) {
          const number = Number(/^data: (\d+)/.exec(came)[1]);
          times[number] = now;
        }
      });
      resolve(times);
    });
    request.on('error', reject);
  });
}

const quantile = (sorted, part) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))];

async function main() {
  const server = http.createServer((request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.flushHeaders();
    response.socket.setNoDelay(true);
    listeners.push(response);
  });
  await new Promise((resolve) => server.listen(local, '127.0.0.1', resolve));
  const direct = await listen(local, `127.0.0.1:${local}`);
  const through = [];
  for (const [name, port, host] of sides) through.push([name, await listen(Number(port), host)]);
  for (let number = 0; number < events; number++) {
    // Nobody is always the first.
    const from = number % listeners.length;
    for (const response of [...listeners.slice(from), ...listeners.slice(0, from)]) response.write(`data: ${number}\n\n`);
    await new Promise((resolve) => setTimeout(resolve, every));
  }
  await new Promise((resolve) => setTimeout(resolve, 1000));
  for (const [name, times] of through) {
    const later = direct.map((at, number) => Number(times[number] - at) / 1e6).sort((a, b) => a - b);
    assert.strictEqual(later.length, events);
    const [p50, p99, max] = [0.5, 0.99, 1].map((part) => quantile(later, part).toFixed(2));
    console.log(`${name.padEnd(8)} later than directly by p50 ${p50} ms, p99 ${p99} ms, max ${max} ms`);
  }
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
