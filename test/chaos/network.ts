import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** A hardware address that nobody has: what is sent there is gone, and nobody is told. */
const nobody = '02:00:00:00:00:01'

export const bridgeAddress = '10.99.0.1'

/**
 * A bridge, and a network namespace for each party, joined to it by a veth pair. It must be called inside a network and a mount namespace of the run's own
 * (see sandbox.ts): then nothing of it outlives the run.
 */
export class Network {
  static async create(): Promise<Network> {
    await ip('link', 'set', 'lo', 'up')
    await ip('link', 'add', 'br0', 'type', 'bridge', 'stp_state', '0', 'forward_delay', '0')
    await ip('addr', 'add', `${bridgeAddress}/16`, 'dev', 'br0')
    await ip('link', 'set', 'br0', 'up')
    return new Network()
  }

  /** Makes a namespace with one address. */
  async addParty(name: string, address: string): Promise<void> {
    await ip('netns', 'add', name)
    await ip('link', 'add', veth(name), 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name)
    await ip('link', 'set', veth(name), 'master', 'br0', 'up')
    await ip('-n', name, 'link', 'set', 'lo', 'up')
    await ip('-n', name, 'addr', 'add', `${address}/16`, 'dev', 'eth0')
    await ip('-n', name, 'link', 'set', 'eth0', 'up')
  }

  /** Gives the bridge another address, for a link of the proxy. */
  async addAddress(address: string): Promise<void> {
    await ip('addr', 'add', `${address}/16`, 'dev', 'br0')
  }

  /**
   * What a party sends to an address is lost from now on, silently; what comes from there still arrives. A blackhole route would not do: it answers
   * connect() with an error at once, which no broken network does.
   */
  async silence(party: string, address: string): Promise<void> {
    await ip('-n', party, 'neigh', 'replace', address, 'lladdr', nobody, 'dev', 'eth0', 'nud', 'permanent')
  }

  async unsilence(party: string, address: string): Promise<void> {
    await ip('-n', party, 'neigh', 'del', address, 'dev', 'eth0')
  }

  /** Pulls a party's plug: nothing goes in or out. */
  async unplug(party: string): Promise<void> {
    await ip('link', 'set', veth(party), 'down')
  }

  async plug(party: string): Promise<void> {
    await ip('link', 'set', veth(party), 'up')
  }

  async isPlugged(party: string): Promise<boolean> {
    const { stdout } = await run('ip', ['-o', 'link', 'show', veth(party)])
    return /[<,]UP[,>]/.test(stdout)
  }
}

/** The command that runs another one in a party's namespace, under the same process id. */
export function inside(party: string): readonly string[] {
  return ['ip', 'netns', 'exec', party]
}

function veth(name: string): string {
  return `v-${name}`.slice(0, 15)
}

async function ip(...args: readonly string[]): Promise<void> {
  await run('ip', [...args])
}
