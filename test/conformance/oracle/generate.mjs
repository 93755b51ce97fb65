// Draws cases and writes each as a line of JSON with what flagd-core made of it:
//
//   node generate.mjs --seed 1 --cases 100000 --out cases.jsonl
//
// With --rare N it goes on, and keeps of what follows the cases of classes of
// differences that have fewer than N yet.
//
// How the cases are distributed goes to the standard error, so that one can see
// that they are not vacuous.

import { createWriteStream } from 'node:fs'
import { once } from 'node:events'
import { parseArgs } from 'node:util'
import { Coverage } from './coverage.mjs'
import { Case } from './flags.mjs'
import { amended, decide, freeze, raw } from './oracle.mjs'
import { Random } from './random.mjs'
import { context } from './values.mjs'

const maxName = 200
// How many times as many cases are looked at for rare ones.
const mostDraws = 50

// stringify is JSON.stringify that keeps the sign of -0 in numbers.
function stringify(value) {
  if (Object.is(value, -0)) return '-0'
  if (Array.isArray(value)) return `[${value.map(stringify).join(',')}]`
  if (value === null || typeof value !== 'object') return JSON.stringify(value)
  return `{${Object.entries(value).map(([key, v]) => `${JSON.stringify(key)}:${stringify(v)}`).join(',')}}`
}

// wellFormed tells whether a text can go over the wire: a lone half of a
// surrogate pair cannot be UTF-8.
const wellFormed = (text) => !/[\ud800-\udfff]/u.test(text)

function draw(seed, number) {
  const random = new Random(Math.imul(seed, 0x9e3779b1) + Math.imul(number, 0x85ebca6b))
  const drawn = new Case(random, number)
  const now = random.between(1_699_999_000, 1_700_001_000)
  const data = context(random)
  freeze(now)
  if (drawn.probe) {
    const result = raw(drawn.set(), drawn.key, data)
    if (result !== undefined && result.length <= maxName && wellFormed(result)) drawn.addVariant(result)
  }
  const want = decide(drawn.set(), drawn.key, drawn.type, data)
  const line = { flag: drawn.key, definition: drawn.definition(true), context: data, now, want }
  const { decision, because } = amended(drawn.set(), drawn.key, drawn.type, data, line.definition.targeting)
  if (stringify(decision) !== stringify(want)) {
    line.amended = decision
    // Where no amendment mattered it is flagd-core's compiler that does otherwise
    // than its interpreter.
    line.because = because.length > 0 ? because.sort() : ['compiler']
  }
  return line
}

async function main() {
  const { values } = parseArgs({
    options: { seed: { type: 'string' }, cases: { type: 'string' }, out: { type: 'string' }, rare: { type: 'string', default: '0' } },
  })
  const seed = Number(values.seed)
  const cases = Number(values.cases)
  if (!Number.isSafeInteger(seed) || !Number.isSafeInteger(cases) || cases < 1 || !values.out) {
    console.error('usage: node generate.mjs --seed N --cases N --out FILE [--rare N]')
    process.exit(2)
  }
  const out = createWriteStream(values.out)
  const coverage = new Coverage()
  let rare = ['any']
  for (let i = 0; i < cases || (rare.length > 0 && i < cases * mostDraws); i++) {
    const line = draw(seed, i)
    if (i >= cases) {
      rare = coverage.rare(Number(values.rare))
      if (!line.because?.some((name) => rare.includes(name))) continue
    }
    coverage.add(line)
    if (!out.write(stringify(line) + '\n')) await once(out, 'drain')
  }
  out.end()
  await once(out, 'finish')
  console.error(coverage.report())
  const holes = coverage.holes()
  if (cases >= 1000 && holes.length > 0) {
    console.error(`operators that no match goes through: ${holes.join(', ')}`)
    process.exit(1)
  }
}

await main()
