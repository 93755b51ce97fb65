// The providers for browsers: one context is set, for which all flags are
// evaluated at once and kept. What they need of a browser is made up for.

import { EventSource } from 'eventsource'
import { details, evaluate, listen } from './details.mjs'

class MemoryStorage {
  #items = new Map()
  getItem(key) {
    return this.#items.get(key) ?? null
  }
  setItem(key, value) {
    this.#items.set(key, String(value))
  }
  removeItem(key) {
    this.#items.delete(key)
  }
}

async function provider(name, { host, port, selector, baseUrl }) {
  if (name === 'flagd-web') {
    const { FlagdWebProvider } = await import('@openfeature/flagd-web-provider')
    const select = (next) => (request) => {
      if (selector) request.header.set('Flagd-Selector', selector)
      return next(request)
    }
    return new FlagdWebProvider({ host, port, tls: false, maxRetries: 0, maxDelay: 500, interceptors: [select] })
  }
  const { OFREPWebProvider } = await import('@openfeature/ofrep-web-provider')
  return new OFREPWebProvider({ baseUrl, headers: selector ? [['Flagd-Selector', selector]] : [], cacheMode: 'disabled' })
}

export async function web(name, options, say) {
  globalThis.EventSource ??= EventSource
  globalThis.localStorage ??= new MemoryStorage()
  const { ClientProviderEvents, OpenFeature } = await import('@openfeature/web-sdk')
  await OpenFeature.setContext(options.context ?? {})
  const client = OpenFeature.getClient()
  listen(client, ClientProviderEvents, say)
  await OpenFeature.setProviderAndWait(await provider(name, options))
  return {
    evaluate: async (command) => details(evaluate(client, command)),
    context: async ({ context }) => {
      await OpenFeature.setContext(context)
      return {}
    },
    close: async () => {
      await OpenFeature.close()
      return {}
    },
  }
}
