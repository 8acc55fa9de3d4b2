import { readFileSync } from 'node:fs'
import { createSlipwayClient } from '../../client/index.js'
import { contextFilePath, readContextFile, writeContextFile } from '../context-file.js'
import { CliError, exitCodes, usageError } from '../failure.js'
import { formatTable } from '../format.js'
import type { Session } from '../session.js'
import { readStdin } from '../terminal.js'

/** A secret from a file, or from standard input where that is `-`. Never from a flag: flags are in every process list. */
export async function readSecret(session: Session, source: string, what: string): Promise<string> {
  try {
    return (source === '-' ? await readStdin(session.surroundings) : readFileSync(source, 'utf8')).trim()
  } catch (error) {
    throw new CliError(
      exitCodes.usage,
      `cannot read ${what} from ${source}: ${error instanceof Error ? error.message : String(error)}`,
    )
  }
}

export interface LoginFlags {
  /** The global flag of that name. */
  readonly server?: string
  readonly tokenFile: string
  readonly name?: string
  readonly workspace?: string
  readonly caFile?: string
}

/** Proves a token and keeps it, as the current context. */
export async function login(session: Session, flags: LoginFlags): Promise<void> {
  const { server } = flags
  if (server === undefined) throw usageError('say which hub: slipway login --server URL --token-file FILE')
  if (!/^https?:\/\//.test(server))
    throw usageError(`--server must be a URL like https://slipway.example, but is «${server}»`)
  const token = await readSecret(session, flags.tokenFile, 'the token')
  const client = createSlipwayClient({
    baseUrl: server,
    token,
    ...(flags.caFile !== undefined && { caFile: flags.caFile }),
  })
  const info = await client.system.getServerInfo({})
  const { env } = session.surroundings
  const file = readContextFile(env)
  const name = flags.name ?? new URL(server).host
  const context = {
    server,
    token,
    ...(flags.workspace !== undefined && { workspace: flags.workspace }),
    ...(flags.caFile !== undefined && { caFile: flags.caFile }),
  }
  writeContextFile(env, { current: name, contexts: { ...file.contexts, [name]: context } })
  session.printValue(
    { context: name, server, caller: info.caller, version: info.version },
    `Logged in to ${server} as ${info.caller} (context ${name})\n`,
  )
}

export function contextList(session: Session): void {
  const file = readContextFile(session.surroundings.env)
  const rows = Object.entries(file.contexts).map(([name, context]) => ({
    name,
    current: name === file.current,
    server: context.server,
    workspace: context.workspace ?? 'default',
  }))
  const table = formatTable(
    ['CURRENT', 'NAME', 'SERVER', 'WORKSPACE'],
    rows.map((row) => [row.current ? '*' : '', row.name, row.server, row.workspace]),
  )
  session.printValue(rows, session.output === 'name' ? rows.map((row) => `${row.name}\n`).join('') : table)
}

function named(session: Session, name: string) {
  const file = readContextFile(session.surroundings.env)
  const context = file.contexts[name]
  if (context === undefined)
    throw usageError(
      `there is no context «${name}» in ${contextFilePath(session.surroundings.env)}; \`slipway context list\` shows them`,
    )
  return { file, context }
}

export function contextUse(session: Session, name: string): void {
  const { file } = named(session, name)
  writeContextFile(session.surroundings.env, { ...file, current: name })
  session.printValue({ current: name }, `Context ${name} is in use\n`)
}

export function contextShow(session: Session, name: string | undefined): void {
  const chosen = name ?? readContextFile(session.surroundings.env).current
  const { context } = named(session, chosen)
  const shown = {
    name: chosen,
    server: context.server,
    workspace: context.workspace ?? 'default',
    ...(context.caFile !== undefined && { caFile: context.caFile }),
  }
  session.printValue(
    shown,
    Object.entries(shown)
      .map(([key, value]) => `${key}: ${value}\n`)
      .join(''),
  )
}

export function contextDelete(session: Session, name: string): void {
  const { file } = named(session, name)
  const contexts = Object.fromEntries(Object.entries(file.contexts).filter(([key]) => key !== name))
  writeContextFile(session.surroundings.env, { current: file.current === name ? '' : file.current, contexts })
  session.printValue({ deleted: name }, `Context ${name} is deleted\n`)
}

export async function whoami(session: Session): Promise<void> {
  const info = await (await session.client()).system.getServerInfo({})
  const shown = {
    caller: info.caller,
    server: session.connection.server,
    workspace: session.workspace,
    version: info.version,
    hubId: info.hubId,
    replica: info.replica,
  }
  session.printValue(
    shown,
    Object.entries(shown)
      .map(([key, value]) => `${key}: ${value}\n`)
      .join(''),
  )
}
