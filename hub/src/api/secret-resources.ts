import { create } from '@bufbuild/protobuf'
import * as hub from '@slipway/proto/hub/v1'
import { HubError } from '../domain/error/errors.js'
import { resourceName, secretName } from '../domain/names.js'
import type { SecretDetails, SecretUse, ShownSecret } from '../store/secrets.js'
import { toTime } from './convert.js'

// Secrets between rows and protobuf. What they hold is not among it.

/** @param field that named it. */
export function secretNotFound(name: string, field = 'name'): HubError {
  const description = `there is no secret ${name}; \`slipway get secrets\` lists them`
  return new HubError('SECRET_NOT_FOUND', description, {
    metadata: { secret: name },
    violations: [{ field, description }],
  })
}

/** The refusal of a secret that something needs. */
export function secretInUse(name: string, uses: readonly SecretUse[]): HubError {
  const users = uses.map((use) => resourceName('provider', use.provider_name))
  return new HubError(
    'SECRET_IN_USE',
    `${name} is needed by ${users.join(', ')}; give them other credentials first, and wait until those are proven`,
    { metadata: { secret: name, users: users.join(',') } },
  )
}

export function toSecret(row: ShownSecret, details: SecretDetails | undefined): hub.Secret {
  return create(hub.SecretSchema, {
    name: secretName(row.organization_name, row.name),
    uid: row.id,
    description: row.description,
    labels: { ...row.labels },
    annotations: { ...row.annotations },
    currentVersion: BigInt(row.current_version),
    versions: (details?.versions ?? []).map((version) => ({
      version: BigInt(version.version),
      createTime: toTime(version.created_at),
      creator: version.created_by,
      destroyTime: toTime(version.destroyed_at),
    })),
    uses: (details?.uses ?? []).map((use) => ({
      resource: resourceName('provider', use.provider_name),
      version: BigInt(use.version),
      keptVersion: BigInt(use.kept_version ?? 0),
      pendingReason: pendingText(use),
    })),
    createTime: toTime(row.created_at),
    updateTime: toTime(row.updated_at),
    etag: String(row.version),
  })
}

function pendingText(use: SecretUse): string {
  if (!use.pending) return ''
  if (use.live === 0) return 'no instance is connected that could report whether it works'
  return `${use.behind} of ${use.live} instances have yet to report that it works`
}
