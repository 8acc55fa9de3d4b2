import type { Project, ServerRecord } from './project.js'

const tickMs = 20
const retryMs = 200

/**
 * What runs on the servers: each that runs with user data that says where to phone home does so once for each installation, as cloud-init would, and tries
 * until it is heard.
 */
export class Guests {
  readonly #project: Project
  readonly #phoned = new Set<string>()
  readonly #notBeforeMs = new Map<string, number>()
  readonly #stopping = new AbortController()
  readonly #timer: NodeJS.Timeout

  constructor(project: Project) {
    this.#project = project
    this.#timer = setInterval(() => this.#tick(), tickMs).unref()
  }

  stop(): void {
    clearInterval(this.#timer)
    this.#stopping.abort()
  }

  #tick(): void {
    this.#project.settle()
    const nowMs = Date.now()
    for (const server of this.#project.servers.values()) {
      const boot = `${server.view.id}/${server.installation}`
      if (server.view.status !== 'running' || server.inRescue || this.#phoned.has(boot)) continue
      if (nowMs < (server.runsSinceMs ?? nowMs) + this.#project.durations.boot) continue
      if (nowMs < (this.#notBeforeMs.get(boot) ?? 0)) continue
      const url = phoneHomeUrlOf(server.userData)
      this.#phoned.add(boot)
      if (url !== undefined) void this.#phone(server, url, boot)
    }
  }

  async #phone({ view }: ServerRecord, url: string, boot: string): Promise<void> {
    try {
      const body = new URLSearchParams({ instance_id: String(view.id), hostname: view.name, fqdn: view.name })
      const signal = AbortSignal.any([this.#stopping.signal, AbortSignal.timeout(10_000)])
      const response = await fetch(url, { method: 'POST', body, signal })
      await response.body?.cancel()
      if (!response.ok) throw new Error(`answered ${response.status}`)
    } catch {
      this.#notBeforeMs.set(boot, Date.now() + retryMs)
      this.#phoned.delete(boot)
    }
  }
}

/** Where user data says to phone home: in a cloud-config, by itself or in a part of a MIME message. */
export function phoneHomeUrlOf(userData: string): string | undefined {
  return /^phone_home:\r?\n\s+url: "?([^\s"]+)"?/m.exec(userData)?.[1]
}
