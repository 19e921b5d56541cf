"""Steps on the pixels that neurons look at, between steps on whole masks in which pixels that are zero may return."""

from collections.abc import Callable

import torch
from torch import Tensor

from whatwhere.readouts import FactorizedReadout
from whatwhere.readouts.support import Restricted, Support, sparse_support


class ActiveSet:
    """The masks of a factorised readout while only their values on a support are stepped, with an optimiser of its own.

    What is not on the support stays as it is, and so do the moments that the optimiser keeps of it, which whole steps
    alone renew. Adam corrects all moments by one count of steps, so where masks are zero its steps are up to three
    times as long; that moves no optimum, since penalty and gradient are scaled alike. `make_optimizer`: of tensors.
    """

    def __init__(
        self,
        readout: FactorizedReadout,
        optimizer: torch.optim.Optimizer,
        make_optimizer: Callable[[list[Tensor]], torch.optim.Optimizer],
    ) -> None:
        self.readout, self.optimizer, self.make_optimizer = readout, optimizer, make_optimizer
        self.inner: torch.optim.Optimizer | None = None

    @property
    def support(self) -> Support | None:
        """Of the steps to come; None: whole masks are stepped."""
        return None if self.readout.restricted is None else self.readout.restricted.support

    @torch.no_grad()
    def begin(self, pattern: Tensor | None = None) -> None:
        """Steps where masks are not zero, if that is sparse enough, or where a pattern (n_neurons, h * w) is true."""
        self.end()
        mask = self.readout.mask.flatten(1)
        moments = self.optimizer.state[self.readout.mask]
        if not moments and isinstance(self.optimizer, torch.optim.Adam):
            return  # a first step, or the first after going back to the start, is of whole masks
        support = sparse_support(mask) if pattern is None else Support.of(pattern)
        if support is None:
            return
        values = support.gathered(mask)
        self.inner = self.make_optimizer([values])
        for name, moment in moments.items():
            whole = moment.shape == self.readout.mask.shape
            self.inner.state[values][name] = support.gathered(moment) if whole else moment.clone()
        self.readout.restrict(Restricted(support, values.requires_grad_()))

    @torch.no_grad()
    def write(self) -> None:
        """Brings masks and the optimiser's moments of them up to date."""
        if self.readout.restricted is None or self.inner is None:
            return
        support, values = self.readout.restricted.support, self.readout.restricted.values
        support.scatter_(self.readout.mask, values)
        whole = self.optimizer.state[self.readout.mask]
        for name, moment in self.inner.state[values].items():
            if moment.shape == values.shape:
                support.scatter_(whole[name], moment)
            else:
                whole[name].copy_(moment)

    def end(self) -> None:
        """Whole masks are stepped from here on."""
        self.write()
        self.readout.restrict(None)
        self.inner = None

    def choose(self, whole: bool) -> None:
        """The next step is of whole masks, or of what the last whole step left."""
        if whole:
            self.end()
        elif self.inner is None:
            self.begin()

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """What steps the values, at the rate of the other optimiser; none where whole masks are stepped."""
        if self.inner is None:
            return []
        self.inner.param_groups[0]["lr"] = self.optimizer.param_groups[0]["lr"]
        return [self.inner]
