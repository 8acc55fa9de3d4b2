import type { Command } from 'commander'
import { noFilter, idOf } from './resource-type.js'
import { resourceTypes } from './resources.js'
import type { Session } from './session.js'

const shells = {
  bash: `_slipway() {
  local IFS=$'\\n'
  COMPREPLY=($(compgen -W "$(slipway __complete "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)" -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -F _slipway slipway
`,
  zsh: `#compdef slipway
_slipway() {
  local -a found
  found=(\${(f)"$(slipway __complete "\${words[@]:1:$((CURRENT-1))}" 2>/dev/null)"})
  compadd -a found
}
compdef _slipway slipway
`,
  fish: `complete -c slipway -f -a '(slipway __complete (commandline -opc)[2..] (commandline -ct) 2>/dev/null)'
`,
} as const

export const shellNames = Object.keys(shells) as (keyof typeof shells)[]

/** The script that makes a shell ask `__complete`. Undefined for a shell that is not known. */
export function completionScript(shell: string): string | undefined {
  return shells[shell as keyof typeof shells]
}

/** What may come next after some words, the last of which is being typed. */
export async function complete(program: Command, session: Session, words: readonly string[]): Promise<string[]> {
  const typed = words.at(-1) ?? ''
  let command = program
  const rest: string[] = []
  for (const word of words.slice(0, -1)) {
    const next = rest.length === 0 ? command.commands.find((candidate) => candidate.name() === word) : undefined
    if (next === undefined) rest.push(word)
    else command = next
  }
  const options = typed.startsWith('-')
    ? command.options.map((option) => option.long ?? '').filter((long) => long !== '')
    : []
  const visible = command.commands.map((candidate) => candidate.name()).filter((name) => !name.startsWith('__'))
  const names =
    rest.length === 0 && visible.length > 0
      ? visible
      : typed.startsWith('-')
        ? []
        : await resourcesFor(command, session, rest)
  return [...options, ...names].filter((name) => name.startsWith(typed)).sort()
}

async function resourcesFor(command: Command, session: Session, rest: readonly string[]): Promise<string[]> {
  const parent = command.parent?.name() ?? ''
  const group = resourceTypes.find((type) => type.singular === parent)
  const positional = rest.filter((word) => !word.startsWith('-'))
  if (group !== undefined && positional.length === 0 && command.name() !== 'add' && command.name() !== 'order')
    return namesOf(session, group.singular)
  if (!['get', 'describe', 'delete', 'watch', 'wait', 'events'].includes(command.name())) return []
  if (command.name() === 'wait' || command.name() === 'events') {
    const lists = await Promise.all(
      resourceTypes.map(async (type) =>
        (await namesOf(session, type.singular)).map((name) => `${type.singular}/${name}`),
      ),
    )
    return lists.flat()
  }
  const [word] = positional
  return word === undefined ? resourceTypes.map((type) => type.plural) : namesOf(session, word)
}

async function namesOf(session: Session, word: string): Promise<string[]> {
  const type = resourceTypes.find((candidate) =>
    [candidate.singular, candidate.plural, ...candidate.aliases].includes(word),
  )
  if (type === undefined) return []
  try {
    for await (const page of type.pages(await session.client(), { ...noFilter, workspace: session.workspace }))
      return page.map((resource) => idOf(resource.name))
  } catch {
    // Completion never complains.
  }
  return []
}
