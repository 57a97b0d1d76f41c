from conceptlab.training.average import Average as Average
from conceptlab.training.descent import descend as descend
from conceptlab.training.interrupt import DeferredInterrupt as DeferredInterrupt
from conceptlab.training.loop import Engine as Engine
from conceptlab.training.parts import GlobalRandomness as GlobalRandomness
from conceptlab.training.parts import Tensors as Tensors
from conceptlab.training.terms import Stop as Stop
