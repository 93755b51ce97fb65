// Runs one OpenFeature provider and obeys commands from its standard input, one
// JSON object a line; each is answered by one on the standard output, and events
// of the provider are written as they come.
//
//   node client.mjs NAME OPTIONS     where OPTIONS is JSON, see providers below
//
//   {"id":1,"do":"evaluate","type":"boolean","key":"k","default":false,"context":{}}
//   {"id":1,"value":true,"reason":"STATIC","variant":"on","metadata":{}}
//   {"event":"PROVIDER_CONFIGURATION_CHANGED","flags":["k"]}

import { createInterface } from 'node:readline'
import { server } from './server.mjs'
import { web } from './web.mjs'

const providers = {
  'flagd-in-process': server,
  'flagd-rpc': server,
  ofrep: server,
  'flagd-web': web,
  'ofrep-web': web,
}

// Libraries that log must not come between the answers.
console.log = console.info = console.debug = console.error

const say = (message) => process.stdout.write(JSON.stringify(message) + '\n')

async function main() {
  const [name, text] = process.argv.slice(2)
  if (!(name in providers)) {
    console.error(`usage: node client.mjs ${Object.keys(providers).join('|')} OPTIONS`)
    process.exit(2)
  }
  const client = await providers[name](name, JSON.parse(text), say)
  say({ event: 'STARTED' })
  for await (const line of createInterface({ input: process.stdin })) {
    const { id, do: what, ...command } = JSON.parse(line)
    client[what](command).then(
      (answer) => say({ id, ...answer }),
      (err) => say({ id, failure: String(err?.stack ?? err) }),
    )
  }
  // Nobody asks any more.
  process.exit(0)
}

await main()
