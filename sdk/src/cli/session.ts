import { toJson, type DescMessage, type Message } from '@bufbuild/protobuf'
import { stringify } from 'yaml'
import type { SlipwayClient } from '../client/index.js'
import { chooseConnection, type Connection, type ConnectionFlags } from './context-file.js'
import { usageError } from './failure.js'
import { formatTable } from './format.js'
import type { Column, Common, ResourceType } from './resource-type.js'
import type { Surroundings } from './terminal.js'

export const outputs = ['table', 'wide', 'json', 'yaml', 'name'] as const
/** `csv` is for commands that say so. */
export type Output = (typeof outputs)[number] | 'csv'

export interface GlobalFlags extends ConnectionFlags {
  readonly output?: string
  readonly headers?: boolean
}

/** One run of the command line: where it prints, and to whom it speaks. */
export class Session {
  readonly surroundings: Surroundings
  readonly output: Output
  readonly #flags: GlobalFlags
  #client: Promise<SlipwayClient> | undefined

  /** @param more outputs that the command has beside those of all. @throws CliError for an unknown output. */
  constructor(surroundings: Surroundings, flags: GlobalFlags, more: readonly Output[] = []) {
    const known = [...outputs, ...more]
    const output = known.find((candidate) => candidate === (flags.output ?? 'table'))
    if (output === undefined) throw usageError(`-o ${flags.output ?? ''} is not known; there are ${known.join(', ')}`)
    this.surroundings = surroundings
    this.output = output
    this.#flags = flags
  }

  get connection(): Connection {
    return chooseConnection(this.#flags, this.surroundings.env)
  }

  get workspace(): string {
    return this.connection.workspace
  }

  /** The transport is loaded with the first call: help and completion need none. */
  client(): Promise<SlipwayClient> {
    this.#client ??= import('../client/index.js').then(({ createSlipwayClient }) => {
      const { server, token, caFile } = this.connection
      return createSlipwayClient({ baseUrl: server, token, ...(caFile !== undefined && { caFile }) })
    })
    return this.#client
  }

  print(text: string): void {
    this.surroundings.stdout.write(text)
  }

  /** Messages go where they are in nobody's way. */
  note(text: string): void {
    this.surroundings.stderr.write(`${text}\n`)
  }

  get structured(): boolean {
    return this.output === 'json' || this.output === 'yaml'
  }

  /** Prints a value that is no resource; `text` is what people see. */
  printValue(value: unknown, text: string): void {
    if (this.output === 'json') this.print(`${JSON.stringify(value, undefined, 2)}\n`)
    else if (this.output === 'yaml') this.print(stringify(value))
    else this.print(text)
  }

  /** Prints one resource. */
  printOne(type: ResourceType, resource: Common): void {
    if (this.structured) this.printValue(jsonOf(type.schema, resource), '')
    else this.printMany(type, [resource])
  }

  /** Prints resources: a list stays a list, however long. */
  printMany(type: ResourceType, resources: readonly Common[], options: { readonly headings?: boolean } = {}): void {
    if (this.structured) {
      this.printValue(
        resources.map((resource) => jsonOf(type.schema, resource)),
        '',
      )
      return
    }
    if (this.output === 'name') {
      for (const resource of resources) this.print(`${resource.name}\n`)
      return
    }
    const columns = this.columns(type)
    const now = this.surroundings.now()
    const headings = (options.headings ?? true) && this.#flags.headers !== false
    this.print(
      formatTable(
        columns.map((column) => column.heading),
        resources.map((resource) => columns.map((column) => column.value(resource, now))),
        { headings },
      ),
    )
  }

  columns(type: ResourceType): readonly Column<Common>[] {
    return type.columns.filter((column) => column.wide !== true || this.output === 'wide')
  }
}

export function jsonOf(schema: DescMessage, message: Message): unknown {
  return toJson(schema, message)
}
