// The providers for servers: a context comes with each evaluation.

import { FlagdProvider } from '@openfeature/flagd-provider'
import { OFREPProvider } from '@openfeature/ofrep-provider'
import { OpenFeature, ServerProviderEvents } from '@openfeature/server-sdk'
import { details, evaluate, listen } from './details.mjs'

const quick = { retryBackoffMs: 100, retryBackoffMaxMs: 500, retryGracePeriod: 2, deadlineMs: 5000 }

function provider(name, { host, port, selector, baseUrl }) {
  switch (name) {
    case 'flagd-in-process':
      return new FlagdProvider({ resolverType: 'in-process', host, port, selector, ...quick })
    case 'flagd-rpc':
      return new FlagdProvider({ resolverType: 'rpc', host, port, selector, ...quick })
    default:
      return new OFREPProvider({ baseUrl, headers: selector ? [['Flagd-Selector', selector]] : [] })
  }
}

export async function server(name, options, say) {
  const client = OpenFeature.getClient()
  listen(client, ServerProviderEvents, say)
  await OpenFeature.setProviderAndWait(provider(name, options))
  return {
    evaluate: async (command) => details(await evaluate(client, command)),
    context: async () => {
      throw new Error('a provider for servers has no context of its own')
    },
    close: async () => {
      await OpenFeature.close()
      return {}
    },
  }
}
