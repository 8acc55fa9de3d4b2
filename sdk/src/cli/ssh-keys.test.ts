import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { readSshKeys, sshKeyRows } from './ssh-keys.js'

const one = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEmulatedEmulatedEmulatedEmulatedEmulatedEmul me@home my key'
const other = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFmulatedEmulatedEmulatedEmulatedEmulatedEmul'

function folder(test: Test) {
  const path = mkdtempSync(join(tmpdir(), 'slipway-keys-'))
  test.teardown(() => rmSync(path, { recursive: true, force: true }))
  return path
}

void t.test('keys and files of keys', async (t) => {
  const home = folder(t)
  mkdirSync(join(home, '.ssh'))
  const file = join(home, '.ssh/id.pub')
  writeFileSync(file, `${one}\n`)
  writeFileSync(join(home, 'many'), `# of the team\r\n${one}\r\n\n  ${other}\n`)
  t.strictSame(readSshKeys([]), [])
  t.strictSame(readSshKeys([one, `${other}\n`]), [one, other])
  t.strictSame(readSshKeys([file, '~/.ssh/id.pub', join(home, 'many')], home), [one, one, one, other])
})

void t.test('private keys stay here, and are not repeated', async (t) => {
  const home = folder(t)
  const file = join(home, 'id')
  const secret = `-----BEGIN OPENSSH ${'PRIVATE'} KEY-----\nc2VjcmV0\n-----END OPENSSH ${'PRIVATE'} KEY-----\n`
  writeFileSync(file, secret)
  t.throws(() => readSshKeys([file]), { exitCode: 2, message: /id holds a private key; .*id\.pub$/ })
  for (const pasted of [secret, secret.replaceAll('\n', ' ')]) {
    t.throws(() => readSshKeys([pasted]), { exitCode: 2, message: /given a private key/ })
    try {
      readSshKeys([pasted])
    } catch (error) {
      t.notMatch(String(error), /c2VjcmV0/)
    }
  }
})

void t.test('files that will not do', async (t) => {
  const home = folder(t)
  writeFileSync(join(home, 'empty.pub'), '# nothing\n')
  writeFileSync(join(home, 'large.pub'), Buffer.alloc(1024 * 1024 + 1))
  t.throws(() => readSshKeys(['~/none.pub'], home), { exitCode: 2, message: /neither a public key nor a file/ })
  t.throws(() => readSshKeys(['~/empty.pub'], home), { exitCode: 2, message: /holds no key/ })
  t.throws(() => readSshKeys(['~/large.pub'], home), { exitCode: 2, message: /too large/ })
  t.throws(() => readSshKeys(['~'], home), { exitCode: 2, message: /cannot be read: EISDIR/ })
})

const hasKeygen = spawnSync('ssh-keygen', ['-?']).error === undefined

void t.test(
  'fingerprints are those that ssh-keygen tells',
  { skip: !hasKeygen && process.env['CI'] !== 'true' && 'needs the package openssh-client' },
  async (t) => {
    const home = folder(t)
    for (const type of ['ed25519', 'rsa', 'ecdsa']) {
      const file = join(home, type)
      execFileSync('ssh-keygen', ['-q', '-t', type, '-N', '', '-C', `a comment of ${type}`, '-f', file])
      const [, fingerprint, ...comment] = execFileSync('ssh-keygen', ['-lf', `${file}.pub`])
        .toString()
        .trim()
        .split(' ')
      const [row] = sshKeyRows(readSshKeys([`${file}.pub`]))
      t.strictSame(row?.slice(1), [fingerprint, comment.slice(0, -1).join(' ')])
    }
    t.strictSame(sshKeyRows([other])[0]?.[2], '')
  },
)
