// An independent OpenID Connect issuer as a process of its own, with its built-in pages for signing in: whoever types a name is that person. Settings come as JSON in ISSUER;
// it says «listening» when it is up.
import { createServer } from 'node:http'
import Provider from 'oidc-provider'

const settings = JSON.parse(process.env.ISSUER ?? '{}')
const { port, keys, people = {}, ttl = {}, redirectUris = ['http://127.0.0.1/callback'] } = settings
const issuer = `http://127.0.0.1:${port}`
const device = 'urn:ietf:params:oauth:grant-type:device_code'

const provider = new Provider(issuer, {
  clients: ['slipway-cli', 'another-client'].map((id) => ({
    client_id: id,
    application_type: 'native',
    token_endpoint_auth_method: 'none',
    grant_types: ['authorization_code', device],
    response_types: ['code'],
    redirect_uris: redirectUris,
  })),
  jwks: { keys },
  cookies: { keys: ['for tests alone'] },
  pkce: { required: () => true },
  features: { deviceFlow: { enabled: true }, devInteractions: { enabled: true } },
  claims: { openid: ['sub', 'groups', 'hd'], profile: ['name'], email: ['email', 'email_verified'] },
  conformIdTokenClaims: false,
  findAccount: (_context, id) => ({ accountId: id, claims: () => ({ ...people[id], sub: id }) }),
  ttl: { DeviceCode: 60, IdToken: 300, AccessToken: 300, Grant: 300, Interaction: 300, Session: 300, ...ttl },
})
provider.on('server_error', (_context, error) => console.error(error))
provider.on('grant.error', (_context, error) => console.log(`refused ${error.error}`))

const server = createServer(provider.callback()).listen(port, '127.0.0.1', () => console.log('listening'))
process.on('SIGTERM', () => {
  server.close(() => process.exit(0))
  server.closeAllConnections()
})
