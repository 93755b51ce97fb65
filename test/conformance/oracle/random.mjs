// A small seeded generator of random numbers: the same seed gives the same cases
// on every machine, which Math.random cannot do.

export class Random {
  #state

  constructor(seed) {
    this.#state = seed >>> 0
  }

  // next returns a number in [0, 1), by the generator mulberry32.
  next() {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let z = this.#state
    z = Math.imul(z ^ (z >>> 15), z | 1)
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61)
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32
  }

  // below returns an integer in [0, n).
  below(n) {
    return Math.floor(this.next() * n)
  }

  // between returns an integer in [low, high].
  between(low, high) {
    return low + this.below(high - low + 1)
  }

  chance(probability) {
    return this.next() < probability
  }

  pick(list) {
    return list[this.below(list.length)]
  }

  // weighted picks a key of an object whose values are weights.
  weighted(weights) {
    const entries = Object.entries(weights)
    let at = this.next() * entries.reduce((sum, [, weight]) => sum + weight, 0)
    for (const [key, weight] of entries) {
      at -= weight
      if (at < 0) return key
    }
    return entries[entries.length - 1][0]
  }

  // some returns between low and high things that make returns.
  some(low, high, make) {
    return Array.from({ length: this.between(low, high) }, (_, i) => make(i))
  }

  shuffled(list) {
    const copy = [...list]
    for (let i = copy.length - 1; i > 0; i--) {
      const j = this.below(i + 1)
      ;[copy[i], copy[j]] = [copy[j], copy[i]]
    }
    return copy
  }
}
