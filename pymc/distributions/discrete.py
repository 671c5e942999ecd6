# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
import pytensor.tensor as pt

from pytensor.graph.basic import Variable

import pymc._layer as _layer


class _OrderedLogistic:
    @classmethod
    def compute_p(cls, eta: Variable, cutpoints: Variable) -> Variable:
        r"""Compute probabilities by their logs, which stay finite where the probabilities are 0.

        .. math::

            \log(\sigma(a) - \sigma(b)) = \log \sigma(a) + \log \sigma(-b) + \log(1 - e^{b - a}),
            \quad a > b
        """
        eta, cutpoints = pt.as_tensor_variable(eta), pt.as_tensor_variable(cutpoints)
        x = cutpoints - pt.shape_padright(eta)
        below, above = -pt.softplus(-x), -pt.softplus(x)
        # Of the cutpoints alone: x would lose digits of their difference where eta is large
        apart = pt.log1mexp(cutpoints[..., :-1] - cutpoints[..., 1:])
        log_p = pt.concatenate(
            [below[..., :1], below[..., 1:] + above[..., :-1] + apart, above[..., -1:]], axis=-1
        )
        return pt.exp(log_p)


released = _layer.run_release(globals(), OrderedLogistic=_OrderedLogistic)
