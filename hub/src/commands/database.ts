import { join } from 'node:path'
import { duration, readConfig, readKeys, type HubConfig } from '../config.js'
import { keyringOf } from '../hub.js'
import { createClientToken, listClientTokens, revokeClientToken } from '../store/client-tokens.js'
import { openDatabase, type Db } from '../store/database.js'
import { startEmbeddedDatabase } from '../store/embedded.js'
import { migrate } from '../store/migrate.js'
import { countKeyUse } from '../store/sealed-values.js'

type Flags = Readonly<Record<string, string | boolean | undefined>>

/** Opens the database that the settings name, for one piece of work. The hub of an embedded one must be down. */
async function withDatabase(flags: Flags, work: (db: Db, config: HubConfig) => Promise<void>): Promise<void> {
  const config = readConfig('serve', flags, process.env)
  const embedded =
    config.databaseUrl === undefined ? await startEmbeddedDatabase(join(config.dataDir ?? '', 'database')) : undefined
  const db = openDatabase({ connectionString: config.databaseUrl ?? embedded?.connectionString ?? '', poolSize: 2 })
  try {
    await work(db, config)
  } finally {
    await db.destroy()
    await embedded?.stop()
  }
}

/** Applies what is missing, and says what that was. */
export function runMigrate(flags: Flags): Promise<void> {
  return withDatabase(flags, async (db) => {
    const applied = await migrate(db)
    console.log(applied.length === 0 ? 'Nothing to do: the database is up to date.' : `Applied ${applied.join(', ')}.`)
  })
}

/** Makes a client token and prints it, and nothing else, on standard output. */
export function runTokenCreate(name: string, flags: Flags): Promise<void> {
  const ttl = flags['ttl']
  const ttlMs = ttl === undefined ? undefined : duration(String(ttl), '--ttl', 1_000)
  return withDatabase(flags, async (db) => {
    const { id, token } = await createClientToken(db, { name, ...(ttlMs !== undefined && { ttlMs }) })
    console.error(`Token ${id}. It is shown this once.`)
    console.log(token)
  })
}

export function runTokenList(flags: Flags): Promise<void> {
  return withDatabase(flags, async (db) => {
    for (const token of await listClientTokens(db)) {
      const state =
        token.revokedAt !== null
          ? 'revoked'
          : token.expiresAt !== null && token.expiresAt < new Date()
            ? 'expired'
            : 'valid'
      console.log(
        [token.id, state.padEnd(7), `used ${token.lastUsedAt?.toISOString() ?? 'never'}`, token.name].join('  '),
      )
    }
  })
}

/** @throws Error where there is no such token. */
export function runTokenRevoke(id: string, flags: Flags): Promise<void> {
  return withDatabase(flags, async (db) => {
    if (!(await revokeClientToken(db, id)))
      throw new Error(`there is no token ${id}; \`slipway-hub token list\` shows them`)
    console.error(`Token ${id} is revoked.`)
  })
}

/** Shows which key-encryption keys are given and how many values each of them wraps: one that wraps none can be taken away. */
export function runKeys(flags: Flags): Promise<void> {
  return withDatabase(flags, async (db, config) => {
    const keyring = await keyringOf(readKeys(config, process.env))
    const uses = await countKeyUse(db)
    const ids = [...new Set([...keyring.keyIds, ...uses.map((use) => use.keyId)])]
    for (const id of ids) {
      const standing = id === keyring.activeKeyId ? 'active' : keyring.keyIds.includes(id) ? 'given' : 'MISSING'
      const ofKey = uses.filter((use) => use.keyId === id)
      const total = ofKey.reduce((sum, use) => sum + use.count, 0)
      const where = ofKey.map((use) => `${use.where} ${use.count}`).join(', ')
      console.log([id, standing.padEnd(7), `wraps ${total}`, where].filter((part) => part !== '').join('  '))
    }
  })
}
