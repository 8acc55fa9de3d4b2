/** Who answered at a BMC's address. What it does not say is absent. */
export interface BmcFacts {
  readonly kind: 'ipmi' | 'redfish' | 'manual' | 'webhook'
  readonly vendor?: string
  readonly model?: string
  readonly firmware?: string
  /** Of the system or of the BMC, in the usual form with dashes, lower case. */
  readonly guid?: string
  /** The BMC's own view of its address. */
  readonly address?: string
  readonly mac?: string
  /** The serial number of the system. */
  readonly serial?: string
  readonly power?: 'on' | 'off' | 'unknown'
}
