// Looks at a screen with Chromium and noVNC, and prints `ok NAME` or `FAIL NAME` per claim. The X server is $DISPLAY's.
// usage: node screen.js URL DIRECTORY [SCREENSHOT]
'use strict';
const assert = require('assert');
const fs = require('fs');
const path = require('path');
const zlib = require('zlib');
const { execFileSync, spawn } = require('child_process');
const WebSocket = require('ws');

const [url, directory, kept] = process.argv.slice(2);
const [WIDTH, HEIGHT] = [640, 480];
const PATIENCE = 20000;

// The tile of the picture: bars that no turning or shifting leaves the same.
const TILE = { width: 128, height: 96, isBar: (x, y) => x < 32 || y < 12 };
const BLUE = [0x20, 0x40, 0xc0];
const YELLOW = [0xf0, 0xd0, 0x30];
const GREEN = [0x10, 0x90, 0x50];

const hex = (colour) => `#${Buffer.from(colour).toString('hex')}`;

// Paints the X server's root window.
function paint(...args) {
  execFileSync('xsetroot', args, { stdio: 'inherit' });
}

// The tile as an X bitmap.
function bitmap() {
  const bytes = [];
  for (let y = 0; y < TILE.height; y++) {
    for (let x = 0; x < TILE.width; x += 8) {
      let byte = 0;
      for (let bit = 0; bit < 8; bit++) if (TILE.isBar(x + bit, y)) byte |= 1 << bit;
      bytes.push(`0x${byte.toString(16)}`);
    }
  }
  const file = path.join(directory, 'tile.xbm');
  fs.writeFileSync(file, `#define tile_width ${TILE.width}\n#define tile_height ${TILE.height}\n` +
    `static char tile_bits[] = {\n${bytes.join(', ')}};\n`);
  return file;
}

// The pixels of a PNG with 8 bits a channel: [width, height, (x, y) => [red, green, blue]].
function decode(png) {
  const parts = [];
  let [width, height, channels] = [0, 0, 0];
  for (let at = 8; at < png.length; at += 12 + png.readUInt32BE(at)) {
    const [length, type] = [png.readUInt32BE(at), png.toString('latin1', at + 4, at + 8)];
    const data = png.subarray(at + 8, at + 8 + length);
    if (type === 'IDAT') parts.push(data);
    if (type !== 'IHDR') continue;
    [width, height, channels] = [data.readUInt32BE(0), data.readUInt32BE(4), { 2: 3, 6: 4 }[data[9]]];
    assert(data[8] === 8 && channels && data[12] === 0, 'a form of PNG that is not expected');
  }
  const [raw, line] = [zlib.inflateSync(Buffer.concat(parts)), width * channels];
  const pixels = Buffer.alloc(line * height);
  for (let y = 0; y < height; y++) {
    const filter = raw[y * (line + 1)];
    for (let x = 0; x < line; x++) {
      const left = x < channels ? 0 : pixels[y * line + x - channels];
      const above = y === 0 ? 0 : pixels[(y - 1) * line + x];
      const corner = x < channels || y === 0 ? 0 : pixels[(y - 1) * line + x - channels];
      const guess = [0, left, above, (left + above) >> 1, paeth(left, above, corner)][filter];
      pixels[y * line + x] = raw[y * (line + 1) + 1 + x] + guess;
    }
  }
  return [width, height, (x, y) => [...pixels.subarray(y * line + x * channels, y * line + x * channels + 3)]];
}

// PNG specification, §9.4.
function paeth(left, above, corner) {
  const [a, b, c] = [Math.abs(above - corner), Math.abs(left - corner), Math.abs(left + above - 2 * corner)];
  if (a <= b && a <= c) return left;
  return b <= c ? above : corner;
}

// Which part of a screenshot is as `expected(x, y)` says.
function likeness(png, expected) {
  const [width, height, pixel] = decode(png);
  assert.deepStrictEqual([width, height], [WIDTH, HEIGHT]);
  let alike = 0;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const [seen, wanted] = [pixel(x, y), expected(x, y)];
      if (seen.every((value, n) => Math.abs(value - wanted[n]) <= 8)) alike += 1;
    }
  }
  return alike / (width * height);
}

// Chromium, spoken to by its DevTools protocol.
class Browser {
  static async start() {
    const args = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync', '--remote-debugging-port=0',
      `--user-data-dir=${path.join(directory, 'browser')}`, 'about:blank'];
    const browser = new Browser();
    browser.process = spawn('chromium', args, { stdio: ['ignore', 'ignore', 'pipe'] });
    process.on('exit', () => browser.process.kill('SIGKILL'));
    const at = await new Promise((resolve, reject) => {
      let said = '';
      browser.process.stderr.on('data', (data) => {
        said += data;
        const listening = /DevTools listening on (ws:\S+)/.exec(said);
        if (listening) resolve(listening[1]);
      });
      browser.process.once('exit', () => reject(new Error(`chromium ended: ${said}`)));
    });
    browser.socket = new WebSocket(at);
    browser.waiting = new Map();
    browser.socket.on('message', (text) => {
      const { id, method, result, error } = JSON.parse(text);
      if (method === 'Page.loadEventFired') browser.loaded();
      const waiting = browser.waiting.get(id);
      browser.waiting.delete(id);
      if (waiting) error ? waiting.reject(new Error(error.message)) : waiting.resolve(result);
    });
    await new Promise((resolve, reject) => browser.socket.once('open', resolve).once('error', reject));
    return browser;
  }

  ask(method, params = {}) {
    const id = (this.last = (this.last || 0) + 1);
    this.socket.send(JSON.stringify({ id, method, params, sessionId: this.sessionId }));
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
  }

  async visit(page) {
    const { targetId } = await this.ask('Target.createTarget', { url: 'about:blank' });
    this.sessionId = (await this.ask('Target.attachToTarget', { targetId, flatten: true })).sessionId;
    await this.ask('Emulation.setDeviceMetricsOverride',
      { width: WIDTH, height: HEIGHT, deviceScaleFactor: 1, mobile: false });
    await this.ask('Page.enable');
    const loaded = new Promise((resolve) => (this.loaded = resolve));
    await this.ask('Page.navigate', { url: page });
    await loaded;
  }

  async screenshot() {
    return Buffer.from((await this.ask('Page.captureScreenshot', { format: 'png' })).data, 'base64');
  }

  // It still writes while it ends.
  async close() {
    const ended = new Promise((resolve) => this.process.once('exit', resolve));
    await this.ask('Browser.close').catch(() => {});
    await ended;
  }

  // Waits until the browser shows that: all of it, but for noVNC's own handle at the edge.
  async shows(expected) {
    for (const began = Date.now(); ; ) {
      const png = await this.screenshot();
      const alike = likeness(png, expected);
      if (alike >= 0.98) return png;
      if (Date.now() - began > PATIENCE) {
        fs.writeFileSync(path.join(directory, 'unlike.png'), png);
        throw new Error(`${(100 * alike).toFixed(1)} % of the picture is as it should be`);
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

const claims = {
  async the_picture_is_that_of_the_screen(browser) {
    paint('-bitmap', bitmap(), '-fg', hex(YELLOW), '-bg', hex(BLUE));
    await browser.visit(url);
    const bars = (x, y) => (TILE.isBar(x % TILE.width, y % TILE.height) ? YELLOW : BLUE);
    const png = await browser.shows(bars);
    if (kept) fs.writeFileSync(kept, png);
  },
  async the_picture_follows_the_screen(browser) {
    for (const colour of [GREEN, BLUE, YELLOW]) {
      paint('-solid', hex(colour));
      await browser.shows(() => colour);
    }
  },
};

async function main() {
  const browser = await Browser.start();
  let failed = 0;
  for (const [name, claim] of Object.entries(claims)) {
    try {
      await claim(browser);
      console.log(`ok ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`FAIL ${name}\n${error.stack}`);
    }
  }
  browser.sessionId = undefined;
  await browser.close();
  return failed;
}

main().then(
  (failed) => process.exit(failed ? 1 : 0),
  (error) => {
    console.log(`FAIL a_remote_screen_is_seen_in_a_browser\n${error.stack}`);
    process.exit(1);
  });
