import { resolve } from 'node:path'
import type { Logger } from 'pino'
import { Guests } from './guests.js'
import { World, type WorldRules, type WorldState } from './world.js'

/** The worlds that a provider process has open: one for each folder, each with its machines running. */
export class Worlds<State extends WorldState> {
  readonly #rules: WorldRules<State>
  readonly #open = new Map<string, { readonly world: World<State>; readonly guests: Guests<State> }>()

  constructor(rules: WorldRules<State>) {
    this.#rules = rules
  }

  /** Opens a world once, making it where there is none. @throws where the folder can't be used, or holds another kind of world. */
  open(dir: string, log: Logger): World<State> {
    const path = resolve(dir)
    const known = this.#open.get(path)
    if (known !== undefined) return known.world
    const world = new World(path, this.#rules)
    const guests = new Guests(world, { log })
    guests.start()
    this.#open.set(path, { world, guests })
    log.info({ world: path, kind: this.#rules.kind }, 'a simulated world is open')
    return world
  }

  close(): void {
    for (const { world, guests } of this.#open.values()) {
      guests.stop()
      world.close()
    }
    this.#open.clear()
  }
}
