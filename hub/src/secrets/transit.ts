import { KeyError, type KeyUnwrapper } from './keys.js'

// The Transit engine of Vault and OpenBao: `POST /v1/{mount}/decrypt/{key}` with `{"ciphertext": "vault:v1:…"}` answers `{"data": {"plaintext": "base64"}}`.
// See "Decrypt data" in the engine's HTTP API.

const timeoutMs = 10_000

export interface TransitOptions {
  /** Base URL of the server, as in VAULT_ADDR. */
  readonly address: string
  /** Secret. As in VAULT_TOKEN. */
  readonly token: string
  /** Vault's enterprise namespaces, as in VAULT_NAMESPACE. */
  readonly namespace?: string
}

/** Unwraps lines of the form `transit:{mount}/{key}:{ciphertext}`, for example `transit:transit/slipway:vault:v1:AbC…`. */
export function transitUnwrapper(options: TransitOptions | undefined): KeyUnwrapper {
  return {
    scheme: 'transit',
    unwrap: async (wrapped) => {
      const match = /^([A-Za-z0-9_./-]+)\/([A-Za-z0-9_.-]+):(\w+:v\d+:\S+)$/.exec(wrapped)
      const [, mount, key, ciphertext] = match ?? []
      if (mount === undefined || key === undefined || ciphertext === undefined)
        throw new KeyError('a transit key must be of the form transit:MOUNT/KEY:CIPHERTEXT')
      if (options === undefined)
        throw new KeyError('a transit key needs VAULT_ADDR, and VAULT_TOKEN or VAULT_TOKEN_FILE')
      return decryptKey(options, mount, key, ciphertext)
    },
  }
}

async function decryptKey(
  { address, token, namespace }: TransitOptions,
  mount: string,
  key: string,
  ciphertext: string,
): Promise<Uint8Array> {
  const where = `transit key ${mount}/${key} at ${address}`
  let response: Response
  try {
    response = await fetch(`${address.replace(/\/+$/, '')}/v1/${mount}/decrypt/${key}`, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        'x-vault-token': token,
        ...(namespace !== undefined && { 'x-vault-namespace': namespace }),
      },
      body: JSON.stringify({ ciphertext }),
      signal: AbortSignal.timeout(timeoutMs),
      redirect: 'error',
    })
  } catch (error) {
    throw new KeyError(`${where} cannot be reached: ${error instanceof Error ? error.message : String(error)}`)
  }
  if (!response.ok) throw new KeyError(`${where} refuses to decrypt: HTTP ${response.status}`)
  const body = (await response.json().catch(() => undefined)) as { data?: { plaintext?: unknown } } | undefined
  const plaintext = body?.data?.plaintext
  if (typeof plaintext !== 'string') throw new KeyError(`${where} gave an answer without a plaintext`)
  return Buffer.from(plaintext, 'base64')
}
