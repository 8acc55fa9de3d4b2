import { defineProvider, ProviderError } from '@slipway/sdk'
import { z } from 'zod'

type Server = { id: string; name: string; key: string; power: 'on' | 'off'; ip: string }

async function call<Answer>(url: string, token: string, method = 'GET', body?: object): Promise<Answer> {
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
  const response = await fetch(url, { method, headers, ...(body && { body: JSON.stringify(body) }) })
  if (response.status === 401) throw new ProviderError('CREDENTIALS', 'the cloud refuses the token')
  if (!response.ok) throw new ProviderError('UNAVAILABLE', `the cloud answers ${response.status}`)
  return (await response.json()) as Answer
}
const view = ({ id, power, ip }: Server) => ({ externalId: id, power, addresses: [{ type: 'public' as const, ip }] })

await defineProvider({
  family: 'example-cloud',
  kind: 'dynamic',
  config: z.object({ url: z.url() }),
  credentials: z.object({ token: z.string() }),
  data: z.object({ image: z.string().default('debian-13') }),
  async create({ config, credentials: { token }, step }, { name, ownershipKey: key, typeId, data, bootstrap }) {
    const order = { name, key, type: typeId, image: data.image, userData: bootstrap.userData }
    const server = await step('server', {
      run: () => call<Server>(`${config.url}/servers`, token, 'POST', order),
      find: async () => (await call<Server[]>(`${config.url}/servers?key=${key}`, token))[0],
    })
    return view(server)
  },
  async observe({ config, credentials: { token } }, id) {
    return (await call<Server[]>(`${config.url}/servers?id=${id}`, token)).map(view)[0]
  },
  async delete({ config, credentials: { token } }, { ownershipKey }) {
    await call(`${config.url}/servers?key=${ownershipKey}`, token, 'DELETE')
  },
  async *list({ config, credentials: { token } }) {
    for (const server of await call<Server[]>(`${config.url}/servers`, token))
      yield { ...view(server), ownershipKey: server.key }
  },
}).serve()
