import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Bootstrap } from '@slipway/sdk'
import fc from 'fast-check'
import t from 'tap'
import { parse } from 'yaml'
import { makeIso } from './iso9660.js'
import { reachableUrl, seedFiles, seedImage, userNetworkHost } from './seed.js'

const made = new Date('2026-03-04T05:06:07Z')

const bootstrap: Bootstrap = {
  hostname: 'web-1.example.org',
  userData: '',
  phoneHomeUrl: 'http://127.0.0.1:8080/v1/phone-home',
  phoneHomePathUrl: 'http://127.0.0.1:8080/v1/phone-home/secret-token',
  phoneHomeToken: 'secret-token',
  sshPublicKeys: [],
}

void t.test('without user-data of its own a machine is told to phone home', async (t) => {
  const files = seedFiles('sw-1', bootstrap, userNetworkHost)
  t.equal(files['meta-data'], 'instance-id: "sw-1"\nlocal-hostname: "web-1.example.org"\n')
  t.match(
    files['user-data'],
    /^#cloud-config\nphone_home:\n {2}url: "http:\/\/10\.0\.2\.2:8080\/v1\/phone-home\/secret-token"\n/,
  )
  t.notOk('vendor-data' in files)
})

void t.test('user-data stays as it is, and phoning home goes beside it', async (t) => {
  const userData = `#!/bin/sh\ncurl -X POST -H 'authorization: Bearer secret-token' ${bootstrap.phoneHomeUrl}\ncurl http://127.0.0.1:9/\n`
  const files = seedFiles('sw-1', { ...bootstrap, userData }, userNetworkHost)
  t.equal(
    files['user-data'],
    userData.replace('127.0.0.1:8080', '10.0.2.2:8080'),
    "of all addresses only the hub's is made reachable",
  )
  t.match(files['vendor-data'], /^#cloud-config\nphone_home:\n {2}url: "http:\/\/10\.0\.2\.2:8080\//)
  t.equal(seedFiles('sw-1', { ...bootstrap, userData }, undefined)['user-data'], userData)
})

void t.test('a class that asks for no phone call gets none', async (t) => {
  const silent = { ...bootstrap, phoneHomeUrl: '', phoneHomePathUrl: '', phoneHomeToken: '' }
  t.same(seedFiles('sw-1', { ...silent, hostname: '' }, userNetworkHost), {
    'meta-data': 'instance-id: "sw-1"\nlocal-hostname: "sw-1"\n',
    'user-data': '#cloud-config\n{}\n',
  })
  t.same(Object.keys(seedFiles('sw-1', { ...silent, userData: '#cloud-config\n' }, userNetworkHost)), [
    'meta-data',
    'user-data',
  ])
})

void t.test('keys stand in the meta-data, whatever the user-data is', async (t) => {
  const aKey = fc.string({ unit: 'grapheme' }).map((comment) => `ssh-ed25519 AAAA ${comment}`)
  fc.assert(
    fc.property(
      fc.array(aKey, { minLength: 1, maxLength: 5 }),
      fc.constantFrom('', '#!/bin/sh\n'),
      (keys, userData) => {
        const files = seedFiles('sw-1', { ...bootstrap, userData, sshPublicKeys: keys }, userNetworkHost)
        t.strictSame(parse(files['meta-data']), {
          'instance-id': 'sw-1',
          'local-hostname': 'web-1.example.org',
          'public-keys': keys,
        })
        const without = seedFiles('sw-1', { ...bootstrap, userData }, userNetworkHost)
        t.strictSame({ ...files, 'meta-data': '' }, { ...without, 'meta-data': '' }, 'nothing else changes')
      },
    ),
  )
})

void t.test('only loopback hosts are replaced', async (t) => {
  for (const host of ['127.0.0.1', 'localhost', '[::1]', '0.0.0.0']) {
    t.equal(reachableUrl(`https://${host}:8443/x?y=1`, '10.0.2.2'), 'https://10.0.2.2:8443/x?y=1')
  }
  t.equal(reachableUrl('http://hub.example.org/127.0.0.1', '10.0.2.2'), 'http://hub.example.org/127.0.0.1')
  t.equal(reachableUrl('http://127.0.0.1/x', 'fd00::1'), 'http://[fd00::1]/x')
  t.equal(reachableUrl('no address', '10.0.2.2'), 'no address')
})

/** Reads an image with a program that has nothing to do with ours. */
function isoinfo(image: Buffer, ...args: readonly string[]): Buffer {
  const folder = mkdtempSync(join(tmpdir(), 'slipway-seed-'))
  try {
    const file = join(folder, 'seed.iso')
    writeFileSync(file, image)
    return execFileSync('isoinfo', [...args, '-i', file], { stdio: ['ignore', 'pipe', 'pipe'] })
  } finally {
    rmSync(folder, { recursive: true })
  }
}

function hasIsoinfo(): boolean {
  try {
    execFileSync('isoinfo', ['-version'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

void t.test(
  'images are read back by others',
  { skip: !hasIsoinfo() && process.env['CI'] !== 'true' && 'install the Debian package genisoimage' },
  async (t) => {
    await t.test('the seed', async (t) => {
      const userData = `#cloud-config\n# ${'ü'.repeat(3_000)}\n`
      const files = seedFiles('sw-1', { ...bootstrap, userData }, userNetworkHost)
      const image = seedImage(files, made)
      t.match(isoinfo(image, '-d').toString(), /Volume id: cidata\n[^]*Joliet with UCS level 3 found/)
      t.same(isoinfo(image, '-J', '-f').toString().trim().split('\n').sort(), [
        '/meta-data',
        '/user-data',
        '/vendor-data',
      ])
      t.match(isoinfo(image, '-J', '-l').toString(), /Mar {1,2}4 2026/)
      for (const [name, content] of Object.entries(files))
        t.equal(isoinfo(image, '-J', '-x', `/${name}`).toString(), content, name)
      t.equal(isoinfo(image, '-x', '/META_DATA.;1').toString(), files['meta-data'], 'also under its plain name')
    })
    await t.test('any content', async (t) => {
      const name = fc.stringMatching(/^[a-z][a-z0-9-]{0,19}$/)
      const files = fc.uniqueArray(fc.record({ name, content: fc.uint8Array({ maxLength: 5_000, size: 'max' }) }), {
        selector: (file) => file.name,
        minLength: 1,
        maxLength: 6,
      })
      fc.assert(
        fc.property(files, (files) => {
          const image = makeIso('cidata', files, made)
          t.equal(image.length % 2048, 0)
          for (const file of files) {
            if (!isoinfo(image, '-J', '-x', `/${file.name}`).equals(Buffer.from(file.content)))
              throw new Error(`${file.name} came back otherwise`)
          }
        }),
        { numRuns: 15 },
      )
    })
  },
)

void t.test('what does not fit is refused', async (t) => {
  t.throws(() => makeIso('a label that is too long', [], made), /16 characters/)
  const many = Array.from({ length: 40 }, (_value, index) => ({
    name: `file-number-${index}-of-many`,
    content: Buffer.alloc(0),
  }))
  t.throws(() => makeIso('cidata', many, made), /do not fit/)
})
