import './reflect-stub.js'
import { createHash, randomBytes, webcrypto, X509Certificate } from 'node:crypto'
import * as x509 from '@peculiar/x509'

/** Wide enough for a provider whose clock is a day off. */
const dayMs = 86_400_000

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }

/** A certificate with its key, PEM. */
export interface KeyAndCertificate {
  readonly keyPem: string
  readonly certificatePem: string
}

/** A real certificate authority, made anew for each test. */
export class TestAuthority {
  readonly certificatePem: string
  readonly #certificate: x509.X509Certificate
  readonly #keys: webcrypto.CryptoKeyPair

  private constructor(certificate: x509.X509Certificate, keys: webcrypto.CryptoKeyPair) {
    this.#certificate = certificate
    this.#keys = keys
    this.certificatePem = certificate.toString('pem')
  }

  static async create(name = 'Test hub CA'): Promise<TestAuthority> {
    const keys = await makeKeys()
    const certificate = await x509.X509CertificateGenerator.createSelfSigned({
      serialNumber: serialNumber(),
      name: `CN=${name}`,
      notBefore: new Date(Date.now() - 2 * dayMs),
      notAfter: new Date(Date.now() + 2 * dayMs),
      signingAlgorithm: algorithm,
      keys,
      extensions: [
        new x509.BasicConstraintsExtension(true, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.digitalSignature, true),
      ],
    })
    return new TestAuthority(certificate, keys)
  }

  /** SHA-256 of the public key, as a join token carries it. */
  get pin(): string {
    const spki = new X509Certificate(this.certificatePem).publicKey.export({ type: 'spki', format: 'der' })
    return createHash('sha256').update(spki).digest('hex')
  }

  async serverCertificate(dnsName: string): Promise<KeyAndCertificate> {
    const keys = await makeKeys()
    const life = { notBefore: new Date(Date.now() - 2 * dayMs), notAfter: new Date(Date.now() + 2 * dayMs) }
    const certificate = await this.#issue(await publicKeyOf(keys), 'CN=hub', life, [
      new x509.SubjectAlternativeNameExtension([{ type: 'dns', value: dnsName }]),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
    ])
    const key = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey)).toString('base64')
    return {
      keyPem: `-----BEGIN PRIVATE KEY-----\n${key}\n-----END PRIVATE KEY-----\n`,
      certificatePem: certificate.toString('pem'),
    }
  }

  /**
   * Signs a request as a hub does: its signature is checked, and only its key is used.
   *
   * @param lifeMs from now to its end. @param fromMs when it begins, on this machine's clock; by default a second ago.
   */
  async clientCertificate(
    csrDer: Uint8Array,
    lifeMs: number,
    fromMs = Date.now() - 1_000,
  ): Promise<{ readonly der: Uint8Array; readonly notBefore: Date; readonly notAfter: Date }> {
    const csr = new x509.Pkcs10CertificateRequest(new Uint8Array(csrDer))
    if (!(await csr.verify())) throw new Error('the signature of the signing request is wrong')
    const life = { notBefore: new Date(fromMs), notAfter: new Date(Date.now() + lifeMs) }
    const certificate = await this.#issue(csr.publicKey, 'CN=provider', life, [
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.clientAuth]),
    ])
    return {
      der: new Uint8Array(certificate.rawData),
      notBefore: certificate.notBefore,
      notAfter: certificate.notAfter,
    }
  }

  get der(): Uint8Array {
    return new Uint8Array(this.#certificate.rawData)
  }

  #issue(
    publicKey: x509.PublicKey,
    subject: string,
    life: { readonly notBefore: Date; readonly notAfter: Date },
    extensions: x509.Extension[],
  ): Promise<x509.X509Certificate> {
    return x509.X509CertificateGenerator.create({
      serialNumber: serialNumber(),
      issuer: this.#certificate.subject,
      subject,
      ...life,
      signingAlgorithm: algorithm,
      publicKey,
      signingKey: this.#keys.privateKey,
      extensions,
    })
  }
}

/** The algorithm of the key in a signing request. */
export function keyOfSigningRequest(csrDer: Uint8Array) {
  const { publicKey } = new x509.Pkcs10CertificateRequest(new Uint8Array(csrDer))
  return publicKey.algorithm as { readonly name: string; readonly namedCurve?: string; readonly modulusLength?: number }
}

function makeKeys(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
}

async function publicKeyOf(keys: webcrypto.CryptoKeyPair): Promise<x509.PublicKey> {
  return new x509.PublicKey(await webcrypto.subtle.exportKey('spki', keys.publicKey))
}

function serialNumber(): string {
  return `01${randomBytes(15).toString('hex')}`
}
