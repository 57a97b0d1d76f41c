from conceptlab.distributed.extraction import ActivationParts as ActivationParts
from conceptlab.distributed.extraction import extract as extract
from conceptlab.distributed.shards import Shards as Shards
from conceptlab.distributed.world import World as World
from conceptlab.distributed.world import init as init
