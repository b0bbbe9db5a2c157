/* SPDX-License-Identifier: Apache-2.0 */
/* The engine for hosts without KVM: a thread does what a vCPU would do. */
#include "tests/vmm/vmm.h"

int
threads_vcpu_run(struct vcpu *vcpu)
{
	guest_execute(vcpu->params);
	return 0;
}
