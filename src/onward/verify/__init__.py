"""Compare every gradient with what its rule claims: `onward verify`, and the same for rules and cells of one's own.

`verify` judges a rule on a cell; `gradient` is what a rule gives on a stream of one's own, and `compare` says how two
gradients differ. The modules hold what `onward verify` runs: `matrix`, `costs`, `targets` and `tables`.
"""

from onward.verify import costs as costs
from onward.verify import matrix as matrix
from onward.verify import tables as tables
from onward.verify import targets as targets
from onward.verify.claims import Row as Row
from onward.verify.claims import name_of as name_of
from onward.verify.claims import verify as verify
from onward.verify.gradients import Comparison as Comparison
from onward.verify.gradients import compare as compare
from onward.verify.gradients import finite_difference_error as finite_difference_error
from onward.verify.gradients import gradient as gradient
from onward.verify.gradients import in_float64 as in_float64
from onward.verify.gradients import reference_gradient as reference_gradient
from onward.verify.gradients import stepwise_gradient as stepwise_gradient
