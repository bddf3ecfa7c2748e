"""A network that learns from rows of numbers: everything between a row and a prediction, compiled into one step."""

from onward.rows.stream.ahead import Ahead as Ahead
from onward.rows.stream.density import interval as interval
from onward.rows.stream.density import moved as moved
from onward.rows.stream.density import placed as placed
from onward.rows.stream.inside import Inside as Inside
from onward.rows.stream.learner import RowLearner as RowLearner
from onward.rows.stream.programs import BLOCK as BLOCK
from onward.rows.stream.programs import MANY as MANY
from onward.rows.stream.programs import STREAM as STREAM
from onward.rows.stream.programs import Answers as Answers
from onward.rows.stream.programs import as_usual as as_usual
from onward.rows.stream.recipe import EXPERTS as EXPERTS
from onward.rows.stream.recipe import NETWORKS as NETWORKS
from onward.rows.stream.recipe import RULES as RULES
from onward.rows.stream.recipe import Kind as Kind
from onward.rows.stream.recipe import RowRecipe as RowRecipe
from onward.rows.stream.recipe import experts_of as experts_of
