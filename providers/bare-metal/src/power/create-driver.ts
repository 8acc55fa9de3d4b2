import type { BmcDriver, CreateBmcDriver } from './driver.js'
import { IpmiDriver } from './ipmi/driver.js'
import { ManualDriver } from './manual.js'
import { RedfishDriver } from './redfish/driver.js'
import { WebhookDriver } from './webhook.js'

/** Makes the driver for a machine's BMC. Nothing is sent before its first call. */
export const createBmcDriver: CreateBmcDriver = (settings, secret, environment = {}): BmcDriver => {
  switch (settings.kind) {
    case 'ipmi':
      return new IpmiDriver(settings, secret, environment)
    case 'redfish':
      return new RedfishDriver(settings, secret, environment)
    case 'webhook':
      return new WebhookDriver(settings, secret, environment)
    case 'manual':
      return new ManualDriver(settings, environment)
  }
}
