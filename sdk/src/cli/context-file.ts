import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { parse, stringify } from 'yaml'
import { CliError, exitCodes } from './failure.js'

type Environment = Readonly<Record<string, string | undefined>>

/** A hub, and as whom it is spoken to. */
export interface SavedContext {
  readonly server: string
  /** Secret. */
  readonly token: string
  readonly workspace?: string
  readonly caFile?: string
  /** Of a session of somebody who signed in: where, and until when it lasts (ISO 8601). Absent: the token was given. */
  readonly signedIn?: { readonly issuer: string; readonly until?: string }
}

export interface ContextFile {
  readonly current: string
  readonly contexts: Readonly<Record<string, SavedContext>>
}

export function contextFilePath(env: Environment): string {
  if (env['SLIPWAY_CONFIG'] !== undefined && env['SLIPWAY_CONFIG'] !== '') return env['SLIPWAY_CONFIG']
  return join(env['XDG_CONFIG_HOME'] ?? join(env['HOME'] ?? homedir(), '.config'), 'slipway', 'config.yaml')
}

/** @throws CliError where the file is damaged. */
export function readContextFile(env: Environment): ContextFile {
  const path = contextFilePath(env)
  if (!existsSync(path)) return { current: '', contexts: {} }
  const read = parse(readFileSync(path, 'utf8')) as Partial<ContextFile> | null
  if (typeof read !== 'object' || (read !== null && typeof read.contexts !== 'object')) {
    throw new CliError(exitCodes.failure, `${path} is damaged; correct it, or remove it and log in again`)
  }
  return { current: read?.current ?? '', contexts: read?.contexts ?? {} }
}

/** Writes the file whole or not at all, readable by its owner alone: it holds tokens. */
export function writeContextFile(env: Environment, file: ContextFile): void {
  const path = contextFilePath(env)
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
  const fresh = `${path}.${process.pid}`
  writeFileSync(fresh, stringify(file), { mode: 0o600 })
  chmodSync(fresh, 0o600)
  renameSync(fresh, path)
}

export interface Connection {
  readonly server: string
  readonly token: string
  readonly workspace: string
  readonly caFile: string | undefined
}

export interface ConnectionFlags {
  readonly server?: string
  readonly context?: string
  readonly workspace?: string
}

/** Which hub to speak to: flags go before the environment, and that before the file. @throws CliError where none is named. */
export function chooseConnection(flags: ConnectionFlags, env: Environment): Connection {
  const file = readContextFile(env)
  const name = flags.context ?? env['SLIPWAY_CONTEXT'] ?? file.current
  const saved = file.contexts[name]
  if (saved === undefined && (flags.context ?? env['SLIPWAY_CONTEXT']) !== undefined) {
    throw new CliError(exitCodes.usage, `there is no context ${name}; \`slipway context list\` shows them`)
  }
  const server = flags.server ?? env['SLIPWAY_SERVER'] ?? saved?.server
  if (server === undefined || server === '') {
    throw new CliError(
      exitCodes.auth,
      'no hub is known: `slipway login --server URL`, or set SLIPWAY_SERVER and SLIPWAY_TOKEN',
    )
  }
  return {
    server,
    token: env['SLIPWAY_TOKEN'] ?? saved?.token ?? '',
    workspace: flags.workspace ?? env['SLIPWAY_WORKSPACE'] ?? saved?.workspace ?? 'default',
    caFile: env['SLIPWAY_CA_FILE'] ?? saved?.caFile,
  }
}
