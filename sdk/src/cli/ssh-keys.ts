import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { CliError, exitCodes, usageError } from './failure.js'

/** More than any list of public keys, and less than what was surely not meant. */
const maxFileBytes = 1024 * 1024

/**
 * The public keys that `--ssh-key` names: a key itself, or a file with one or more of them, a line each, as `.pub` files and authorized_keys hold them. A private key is refused
 * here, so that it never leaves this machine.
 *
 * @throws CliError
 */
export function readSshKeys(values: readonly string[], home = homedir()): string[] {
  return values.flatMap((value) => {
    const text = isKeyItself(value) ? value : readKeyFile(value, home)
    if (/PRIVATE[ -]KEY|PuTTY-User-Key-File/i.test(text))
      throw usageError(
        isKeyItself(value)
          ? '--ssh-key was given a private key; give the public one, or the name of the file that ends in .pub'
          : `--ssh-key ${value} holds a private key; give the public one, which is most often in ${value}.pub`,
      )
    const keys = text
      .split(/\r?\n/)
      .map((line) => line.trim())
      .filter((line) => line !== '' && !line.startsWith('#'))
    if (keys.length === 0) throw usageError(`--ssh-key ${value} holds no key`)
    return keys
  })
}

/** A key has a type in front of its body; a private one that is pasted is many lines. */
function isKeyItself(value: string): boolean {
  return /^(ssh-|ecdsa-|sk-)\S+\s/.test(value) || /[\r\n]|PRIVATE KEY/.test(value)
}

function readKeyFile(given: string, home: string): string {
  const file = given === '~' || given.startsWith('~/') ? join(home, given.slice(2)) : given
  try {
    const bytes = readFileSync(file)
    if (bytes.length > maxFileBytes) throw usageError(`--ssh-key ${given} is too large to hold public keys`)
    return bytes.toString('utf8')
  } catch (error) {
    if (error instanceof CliError) throw error
    const why = error instanceof Error && 'code' in error ? String(error.code) : 'unknown'
    const message =
      why === 'ENOENT'
        ? `--ssh-key ${given} is neither a public key nor a file that exists`
        : `--ssh-key ${given} cannot be read: ${why}`
    throw new CliError(exitCodes.usage, message)
  }
}

/** What people tell keys by: type, fingerprint as ssh-keygen shows it, comment. */
export function sshKeyRows(keys: readonly string[]): string[][] {
  return keys.map((key) => {
    const [type = '', body = '', ...comment] = key.split(' ')
    const digest = createHash('sha256').update(Buffer.from(body, 'base64')).digest('base64')
    return [type, `SHA256:${digest.replace(/=+$/, '')}`, comment.join(' ')]
  })
}
