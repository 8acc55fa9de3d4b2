import 'reflect-metadata'
import { createHash, randomBytes, webcrypto, X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'
import * as x509 from '@peculiar/x509'
import { v7 as uuid } from 'uuid'
import { HubError } from '../domain/error/errors.js'
import type { Keyring } from '../secrets/keyring.js'
import { ensureAuthorities, type StoredAuthority } from '../store/authorities.js'
import type { Db } from '../store/database.js'

// The hub's own certificate authority. It signs the gateway's certificates, the providers' and the replicas', and nothing else.

const keyAlgorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const
const authorityLifeMs = 10 * 365 * 86_400_000
const gatewayLifeMs = 90 * 86_400_000
/** It is made anew for each process, and at half of its life. */
const replicaLifeMs = 86_400_000
const defaultProviderLifeMs = 86_400_000
/** Certificates begin a little in the past, for peers whose clocks are behind. */
const clockSkewMs = 5 * 60_000
const minRsaBits = 2048

/** The name that every gateway certificate carries, so that instances need not know by which address they reach a replica. */
export const gatewayServerName = 'gateway.slipway.internal'

/** Who a provider certificate speaks for. */
export interface ProviderIdentity {
  readonly hubId: string
  readonly providerId: string
  /** Lower-case hexadecimal. */
  readonly serial: string
}

export interface IssuedCertificate {
  readonly certificateDer: Uint8Array
  readonly serial: string
  readonly notBefore: Date
  readonly notAfter: Date
}

export interface AuthorityOptions {
  /** How long provider certificates are good for. Default a day. */
  readonly providerCertificateMs?: number
}

export class Authority {
  /** The certificates to trust, the current one first. */
  readonly caDer: readonly Uint8Array[]
  /** The same, PEM. */
  readonly caPems: readonly string[]
  /** SHA-256 of the current authority's public key (SPKI, DER), lower-case hexadecimal. */
  readonly fingerprint: string
  readonly #hubId: string
  readonly #certificate: x509.X509Certificate
  readonly #key: webcrypto.CryptoKey
  readonly #providerCertificateMs: number

  private constructor(
    hubId: string,
    stored: readonly StoredAuthority[],
    key: webcrypto.CryptoKey,
    options: AuthorityOptions,
  ) {
    const [current] = stored
    if (current === undefined) throw new Error('there is no authority')
    this.#hubId = hubId
    this.#certificate = new x509.X509Certificate(new Uint8Array(current.certificateDer))
    this.#key = key
    this.#providerCertificateMs = options.providerCertificateMs ?? defaultProviderLifeMs
    this.caDer = stored.map((authority) => new Uint8Array(authority.certificateDer))
    this.caPems = this.caDer.map((der) => new X509Certificate(der).toString())
    this.fingerprint = fingerprintOf(current.certificateDer)
  }

  /** Reads the authority, and makes it at the very first start. @throws UnsealError where the keyring is not the one that it was sealed with. */
  static async load(db: Db, keyring: Keyring, hubId: string, options: AuthorityOptions = {}): Promise<Authority> {
    const stored = await ensureAuthorities(db, () => makeAuthority(keyring, hubId))
    const [current] = stored
    if (current === undefined) throw new Error('there is no authority')
    const pkcs8 = keyring.open('authority.key', current.id, current.keySealed)
    const key = await webcrypto.subtle.importKey('pkcs8', pkcs8, keyAlgorithm, false, ['sign'])
    return new Authority(hubId, stored, key, options)
  }

  /** @throws HubError CSR_INVALID. */
  async issueProviderCertificate(request: {
    readonly csrDer: Uint8Array
    readonly providerId: string
    readonly instanceName: string
  }): Promise<IssuedCertificate> {
    const publicKey = await checkedPublicKey(request.csrDer)
    const serial = newSerial()
    const certificate = await this.#issue({
      serial,
      publicKey,
      subject: `CN=provider ${request.providerId}`,
      lifeMs: this.#providerCertificateMs,
      usage: x509.ExtendedKeyUsage.clientAuth,
      names: [{ type: 'url', value: `spiffe://slipway/${this.#hubId}/provider/${request.providerId}` }],
    })
    return {
      certificateDer: new Uint8Array(certificate.rawData),
      serial,
      notBefore: certificate.notBefore,
      notAfter: certificate.notAfter,
    }
  }

  /** @param names DNS names and IP addresses by which this replica may be reached. */
  async issueGatewayCertificate(
    names: readonly string[],
  ): Promise<{ readonly certificatePem: string; readonly keyPem: string; readonly notAfter: Date }> {
    const keys = await webcrypto.subtle.generateKey(keyAlgorithm, true, ['sign', 'verify'])
    const certificate = await this.#issue({
      serial: newSerial(),
      publicKey: keys.publicKey,
      subject: 'CN=slipway gateway',
      lifeMs: gatewayLifeMs,
      usage: x509.ExtendedKeyUsage.serverAuth,
      names: [...new Set([gatewayServerName, ...names])].map((name) => ({
        type: isIP(name) === 0 ? ('dns' as const) : ('ip' as const),
        value: name,
      })),
    })
    return {
      // The authority goes along, so that an instance that enrols can compare it with the pin in its token.
      certificatePem: `${certificate.toString('pem')}\n${this.#certificate.toString('pem')}\n`,
      keyPem: toKeyPem(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey)),
      notAfter: certificate.notAfter,
    }
  }

  /** For a replica that calls another one: short-lived, and nobody's but this hub's. */
  async issueReplicaCertificate(): Promise<{
    readonly certificatePem: string
    readonly keyPem: string
    readonly notAfter: Date
  }> {
    const keys = await webcrypto.subtle.generateKey(keyAlgorithm, true, ['sign', 'verify'])
    const certificate = await this.#issue({
      serial: newSerial(),
      publicKey: keys.publicKey,
      subject: 'CN=slipway replica',
      lifeMs: replicaLifeMs,
      usage: x509.ExtendedKeyUsage.clientAuth,
      names: [{ type: 'url', value: `spiffe://slipway/${this.#hubId}/replica` }],
    })
    return {
      certificatePem: certificate.toString('pem'),
      keyPem: toKeyPem(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey)),
      notAfter: certificate.notAfter,
    }
  }

  /** Signs a text: ECDSA P-256 with SHA-256, in the form of IEEE P1363. Texts say in their own words what they are for. */
  async sign(text: string): Promise<Buffer> {
    return Buffer.from(await webcrypto.subtle.sign(keyAlgorithm, this.#key, Buffer.from(text, 'utf8')))
  }

  /** Whether an authority of this hub, the present one or one before it, has signed a text. */
  async hasSigned(text: string, signature: Uint8Array): Promise<boolean> {
    for (const der of this.caDer) {
      const { publicKey } = new x509.X509Certificate(new Uint8Array(der))
      const key = (await publicKey.export()) as webcrypto.CryptoKey
      if (await webcrypto.subtle.verify(keyAlgorithm, key, signature, Buffer.from(text, 'utf8'))) return true
    }
    return false
  }

  #issue(order: {
    readonly serial: string
    readonly publicKey: webcrypto.CryptoKey
    readonly subject: string
    readonly lifeMs: number
    readonly usage: x509.ExtendedKeyUsage
    readonly names: readonly { readonly type: 'dns' | 'ip' | 'url'; readonly value: string }[]
  }): Promise<x509.X509Certificate> {
    const now = Date.now()
    return x509.X509CertificateGenerator.create({
      serialNumber: order.serial,
      issuer: this.#certificate.subject,
      subject: order.subject,
      notBefore: new Date(now - clockSkewMs),
      notAfter: new Date(Math.min(now + order.lifeMs, this.#certificate.notAfter.getTime())),
      publicKey: order.publicKey,
      signingKey: this.#key,
      signingAlgorithm: keyAlgorithm,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        new x509.ExtendedKeyUsageExtension([order.usage]),
        new x509.SubjectAlternativeNameExtension([...order.names]),
      ],
    })
  }
}

/** Who a certificate speaks for, or undefined where it is no provider's. That it is of our authority has been checked by TLS. */
export function readIdentity(certificateDer: Uint8Array): ProviderIdentity | undefined {
  const certificate = new X509Certificate(certificateDer)
  const match = /^URI:spiffe:\/\/slipway\/([0-9a-f-]{36})\/provider\/([0-9a-f-]{36})$/.exec(
    certificate.subjectAltName ?? '',
  )
  if (match?.[1] === undefined || match[2] === undefined) return undefined
  return { hubId: match[1], providerId: match[2], serial: certificate.serialNumber.toLowerCase().replace(/^0+/, '') }
}

/** Whether a certificate is one of a replica of this hub. That it is of our authority has been checked by TLS. */
export function isReplica(certificateDer: Uint8Array, hubId: string): boolean {
  return new X509Certificate(certificateDer).subjectAltName === `URI:spiffe://slipway/${hubId}/replica`
}

function toKeyPem(pkcs8: ArrayBuffer): string {
  const body = Buffer.from(pkcs8)
    .toString('base64')
    .replace(/(.{64})/g, '$1\n')
  return `-----BEGIN PRIVATE KEY-----\n${body}\n-----END PRIVATE KEY-----\n`
}

/** The public key of a signing request whose signature proves that its sender has the private one. @throws HubError CSR_INVALID. */
async function checkedPublicKey(csrDer: Uint8Array): Promise<webcrypto.CryptoKey> {
  const refuse = (why: string, cause?: unknown) =>
    new HubError('CSR_INVALID', `the signing request ${why}`, {
      violations: [{ field: 'csr_der', description: `${why}; send a PKCS#10 request in DER for an ECDSA P-256 key` }],
      cause,
    })
  let csr: x509.Pkcs10CertificateRequest
  let verified: boolean
  try {
    csr = new x509.Pkcs10CertificateRequest(new Uint8Array(csrDer))
    verified = await csr.verify()
  } catch (error) {
    throw refuse('cannot be read', error)
  }
  if (!verified) throw refuse('has a wrong signature')
  // The library's types speak of the browser's, which are not there.
  const { modulusLength } = csr.publicKey.algorithm as { readonly modulusLength?: number }
  if (modulusLength !== undefined && modulusLength < minRsaBits)
    throw refuse(`has an RSA key of less than ${minRsaBits} bits`)
  try {
    return (await csr.publicKey.export()) as webcrypto.CryptoKey
  } catch (error) {
    throw refuse('has a key of an unknown sort', error)
  }
}

async function makeAuthority(keyring: Keyring, hubId: string): Promise<StoredAuthority> {
  const id = uuid()
  const keys = await webcrypto.subtle.generateKey(keyAlgorithm, true, ['sign', 'verify'])
  const now = Date.now()
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: newSerial(),
    name: `CN=Slipway ${hubId}`,
    notBefore: new Date(now - clockSkewMs),
    notAfter: new Date(now + authorityLifeMs),
    signingAlgorithm: keyAlgorithm,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
    ],
  })
  const pkcs8 = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey))
  return { id, certificateDer: Buffer.from(certificate.rawData), keySealed: keyring.seal('authority.key', id, pkcs8) }
}

function fingerprintOf(certificateDer: Uint8Array): string {
  const spki = new X509Certificate(certificateDer).publicKey.export({ type: 'spki', format: 'der' })
  return createHash('sha256').update(spki).digest('hex')
}

/** Sixteen random bytes, positive, without a leading zero. */
function newSerial(): string {
  const bytes = randomBytes(16)
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40
  return bytes.toString('hex')
}
